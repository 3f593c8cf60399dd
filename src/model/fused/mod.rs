//! The network on own CPU kernels, faster than libtorch: predictions in f16 (AVX512_FP16), bf16
//! (AVX512_BF16) or f32 (AVX-512, or AVX2 with FMA), and training in bf16 (AVX-512).
//!
//! For predictions every BatchNorm is folded into its convolution, and bias, residual and ReLU are
//! applied while the sums are in registers. 3×3 convolutions need less than half of the
//! multiplications ([`winograd`]), and blocks of work stay in the CPU's cache. Activations have the
//! same format, with the channels of a pixel adjacent; the head is f32, and so are sums in bf16.
//! Buffers count units of 16 bits; an f32 value takes two. The results are those of
//! [`super::resnet18`] in eval mode within the rounding of the format.
//!
//! - [`kernel`], [`dot`], [`vectors`], [`mod@f16`], [`mod@f32`]: vector kernels, for x86-64
//!   only. [`format`] selects them, and [`scale`] scales factors for f16.
//! - [`winograd`], [`direct`], [`stem`]: the three kinds of convolution.
//! - [`network`]: predictions and features from normalised images.
//! - [`tail`]: the trainable layers, forward and backward, with [`norm`] and [`gradient`].
//! - [`pack`], [`pack_plain`]: filters in the layout of the kernels.
//! - [`memory`], [`threads`]: aligned buffers and threads.

#[cfg(target_arch = "x86_64")]
mod direct;
#[cfg(target_arch = "x86_64")]
mod dot;
#[cfg(target_arch = "x86_64")]
mod f16;
#[cfg(target_arch = "x86_64")]
mod f32;
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
mod scale;
#[cfg(target_arch = "x86_64")]
mod stem;
#[cfg(target_arch = "x86_64")]
mod tail;
mod threads;
#[cfg(target_arch = "x86_64")]
mod tiles;
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
