//! The network's forward pass on processors that multiply in bf16 (AVX512_BF16), faster than libtorch's.
//!
//! Every BatchNorm is folded into its convolution, bias, residual and ReLU are added while the sums are in registers, convolutions of 3×3 take less than half of
//! the multiplications ([`winograd`]), and blocks stay in the processor's cache. Activations are bf16 with the channels of a pixel side by side; sums, biases
//! and the head are f32. It computes what [`super::resnet18`] does in eval mode in bf16, within that format's rounding.
//!
//! - [`kernel`]: the vector instructions, for x86-64 only.
//! - [`winograd`], [`direct`], [`stem`]: the three kinds of convolution.
//! - [`network`]: the whole, from normalised images to ages or features.
//! - [`memory`], [`threads`]: aligned buffers, and who computes.

#[cfg(target_arch = "x86_64")]
mod direct;
#[cfg(target_arch = "x86_64")]
mod kernel;
#[cfg(target_arch = "x86_64")]
mod memory;
#[cfg(target_arch = "x86_64")]
mod network;
#[cfg(target_arch = "x86_64")]
mod stem;
mod threads;
#[cfg(target_arch = "x86_64")]
mod winograd;

#[cfg(not(target_arch = "x86_64"))]
mod absent;
#[cfg(not(target_arch = "x86_64"))]
use absent as network;

pub(crate) use network::{Network, Workspace};
pub(crate) use threads::Threads;

#[cfg(all(test, target_arch = "x86_64"))]
mod tests;
