//! ResNet18 (He et al., 2015, arXiv:1512.03385, table 1) with one output, the age in years.
//!
//! Parameters and buffers have torchvision's names and shapes, so that weights move both ways
//! unchanged. tch's own ResNet has one train flag for all BatchNorms, which lets the running
//! statistics of frozen layers drift. Here each [`Layer`] is either trainable or frozen, and a
//! frozen layer always runs in eval mode without gradients.
//!
//! `network` is the forward pass, `blocks` its residual blocks, and `frozen` computes the frozen
//! layers with the fused kernels.

mod blocks;
mod frozen;
mod network;
#[cfg(test)]
pub(crate) mod tests;

pub(crate) use super::{
    forward::{Mode, Output, PendingOutputs},
    layers::TrainableFrom,
    layout::{is_parameter, layout},
};
pub(crate) use network::ResNet18;
