//! The network, faster than libtorch: its forward pass in f16 (AVX512_FP16), bf16 (AVX512_BF16) or f32 (AVX-512 or AVX2 with FMA), and its training in bf16 (AVX-512).
//!
//! In the forward pass every BatchNorm is folded into its convolution, bias, residual and ReLU are added while the sums are in registers, convolutions of 3×3 take less than half of
//! the multiplications ([`winograd`]), and blocks stay in the processor's cache. Activations are in the same format, with the channels of a pixel side by side; the head is f32,
//! and so are sums in bf16. Buffers count places of 16 bits, of which a number in f32 takes two. It computes what [`super::resnet18`] does in eval mode in this format, within its rounding.
//!
//! - [`kernel`], [`products`], [`vectors`], [`mod@f16`], [`single`]: the vector instructions, for x86-64 only, and [`format`], which chooses; [`scale`], where factors need one.
//! - [`winograd`], [`direct`], [`stem`]: the three kinds of convolution.
//! - [`network`]: the whole, from normalised images to ages or features.
//! - [`tail`]: the layers that are trained, some or all, forward and backward, with [`norm`] and [`gradient`].
//! - [`pack`], [`pack_plain`]: filters as the kernels read them.
//! - [`memory`], [`threads`]: aligned buffers, and who computes.

#[cfg(target_arch = "x86_64")]
mod direct;
#[cfg(target_arch = "x86_64")]
mod f16;
#[cfg(target_arch = "x86_64")]
mod format;
#[cfg(target_arch = "x86_64")]
mod gradient;
#[cfg(target_arch = "x86_64")]
mod kernel;
#[cfg(target_arch = "x86_64")]
mod memory;
#[cfg(target_arch = "x86_64")]
mod network;
#[cfg(target_arch = "x86_64")]
mod norm;
#[cfg(target_arch = "x86_64")]
mod pack;
#[cfg(target_arch = "x86_64")]
mod pack_plain;
#[cfg(target_arch = "x86_64")]
mod products;
#[cfg(target_arch = "x86_64")]
mod scale;
#[cfg(target_arch = "x86_64")]
mod single;
#[cfg(target_arch = "x86_64")]
mod stem;
#[cfg(target_arch = "x86_64")]
mod tail;
mod threads;
#[cfg(target_arch = "x86_64")]
mod vectors;
#[cfg(target_arch = "x86_64")]
mod winograd;

#[cfg(not(target_arch = "x86_64"))]
mod stub;
#[cfg(not(target_arch = "x86_64"))]
use stub::{self as network, self as tail};

pub(crate) use network::{Network, Workspace};
pub(crate) use tail::TrainableLayers;
pub(crate) use threads::Threads;

#[cfg(all(test, target_arch = "x86_64"))]
mod tests;
