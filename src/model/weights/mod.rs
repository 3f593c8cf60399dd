//! Pretrained weights: reads torch `.pth` and safetensors files and the Hugging Face hub, and
//! writes `.pth`.
//!
//! Weights come from outside, so every file is treated as hostile: sizes are checked before memory
//! is reserved, nothing that a pickle names is executed, and a damaged file is an [`Error`], never
//! a panic. Nothing here uses libtorch; the model copies [`TensorData`] into its own parameters.
//!
//! `read` detects the format by content and calls `pth` (with `archive`, `pickle` and `search`
//! below it) or `safetensors`; both use `select` to choose the tensors. `shapes` compares names and
//! shapes, `finite` checks values, and [`imagenet()`] finds torchvision's weights on disk or
//! downloads them with `hub`.

mod archive;
mod error;
mod finite;
mod hub;
mod imagenet;
mod pickle;
mod pth;
mod pth_writer;
mod published;
mod read;
mod safetensors;
mod search;
mod select;
mod shapes;
mod tensor;
#[cfg(test)]
mod tests;
mod text;

pub(crate) use error::{Error, FormatError};
pub(crate) use finite::check_values;
pub(crate) use hub::HubOptions;
pub(crate) use imagenet::{check_available, imagenet};
pub use pth_writer::to_pth;
pub(crate) use published::is_imagenet;
pub use read::read;
pub(crate) use read::{Found, MAX_FILE_BYTES, load_resnet18, parse};
pub(crate) use safetensors::{described, metadata};
pub(crate) use shapes::{Mismatch, check_shapes, without_head};
pub(crate) use tensor::DType;
pub use tensor::{StateDict, TensorData};
