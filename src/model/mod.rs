//! The ResNet18 with one output: the network, its weights, its files and its device.
//!
//! - [`layers`] and [`layout`]: the layers of the network, which of them train, and the names and
//!   shapes of their tensors. [`forward`]: modes and outputs of a forward pass.
//! - [`resnet18`]: the network on libtorch. `fused`: the same network with own CPU kernels.
//! - [`precision`] and [`device`]: number formats and devices.
//! - [`weights`]: reads and writes weights files, and downloads ImageNet weights.
//! - [`tensors`]: named libtorch tensors from and to such files.
//! - [`checkpoint`]: the stored model, `model.safetensors` and `manifest.json`. [`calibration`]:
//!   prediction intervals. [`description`]: the part of the manifest that a weights file carries
//!   itself. [`training_images`]: the record of the images that a model was trained on.
//! - [`starter`]: the built-in face model. [`init`]: initial weights of a training.
//! - [`torchscript`] and [`onnx`]: export models that PyTorch and other runtimes execute without
//!   Visage.
//!
//! Nothing here depends on trainings, requests or the database.

mod batch_norm;
pub(crate) mod calibration;
pub(crate) mod checkpoint;
pub(crate) mod description;
pub(crate) mod device;
mod error;
pub(crate) mod forward;
pub(crate) mod fused;
pub(crate) mod init;
pub(crate) mod layers;
pub(crate) mod layout;
pub(crate) mod moments;
pub(crate) mod onnx;
pub(crate) mod precision;
pub(crate) mod resnet18;
pub(crate) mod slices;
pub(crate) mod starter;
pub(crate) mod tensors;
pub(crate) mod torchscript;
pub(crate) mod training_images;
pub(crate) mod weights;

pub(crate) use error::Error;
