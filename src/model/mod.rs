//! The network: a ResNet18 with one output, its weights, and the device it runs on.
//!
//! - [`resnet18`]: the architecture with torchvision's parameter names, and which parts of it are trained.
//! - `fused`: it again on processors that multiply in 16 bits, faster than libtorch's.
//! - [`weights`]: reading `.pth` and `.safetensors` files, and the hub.
//! - [`init`]: the choices of initial weights.
//! - [`checkpoint`]: what Visage writes to disk and reads back: `model.safetensors` and `manifest.json`. [`calibration`]: the part of it that
//!   prediction intervals are made of.
//! - [`description`]: the part of the manifest that a file of weights carries itself.
//! - [`starter`]: a face model that is part of this program.
//! - [`torchscript`]: a model that PyTorch runs without Visage.
//! - `slices`: the numbers of a tensor, for passes over memory.
//! - [`device`]: CPU or GPU, found at run time. [`precision`]: the number formats that it supports.
//!
//! Nothing here knows of trainings, requests or the database.

pub mod calibration;
pub mod checkpoint;
pub mod description;
pub mod device;
pub(crate) mod fused;
pub mod init;
pub mod precision;
pub mod resnet18;
pub(crate) mod slices;
pub mod starter;
pub mod torchscript;
pub mod weights;

use precision::Precision;

/// A tensor library's failure, or weights that do not fit.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// libtorch refused or failed.
    #[error("libtorch: {}", first_line(.0))]
    Torch(#[from] tch::TchError),
    /// The weights could not be read or have other names or shapes.
    #[error(transparent)]
    Weights(#[from] weights::Error),
    /// A file could not be read or written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The manifest is not one that this program understands.
    #[error("manifest {path}: {reason}")]
    Manifest {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The weights are not those that were written.
    #[error(
        "{path} is damaged: its SHA-256 is {found}, not {expected}; restore it from a backup or train again"
    )]
    Checksum {
        /// The file.
        path: String,
        /// As recorded.
        expected: String,
        /// As found.
        found: String,
    },
    /// The wanted device is not there.
    #[error("device {wanted} is not available: {reason}")]
    Device {
        /// As the user wrote it.
        wanted: String,
        /// Why not.
        reason: String,
    },
    /// The device or the network does not support the requested precision.
    #[error("precision {} is not supported: {reason}; set `precision` to auto", .precision.name())]
    Precision {
        /// The requested precision.
        precision: Precision,
        /// The missing instructions, or the property of the network.
        reason: &'static str,
    },
    /// A name in `trainable` is no part of the network, or the parts leave a gap.
    #[error("trainable: {0}")]
    Trainable(String),
}

impl Error {
    /// Whether the device or the machine had too little memory.
    pub fn is_out_of_memory(&self) -> bool {
        match self {
            Error::Torch(cause) => {
                let text = cause.to_string();
                text.contains("out of memory")
                    || text.contains("DefaultCPUAllocator: not enough memory")
                    || text.contains("can't allocate memory")
            }
            Error::Io(cause) => cause.kind() == std::io::ErrorKind::OutOfMemory,
            Error::Weights(_)
            | Error::Manifest { .. }
            | Error::Checksum { .. }
            | Error::Device { .. }
            | Error::Precision { .. }
            | Error::Trainable(_) => false,
        }
    }
}

/// libtorch appends a C++ stack trace to its messages; people need the first line.
fn first_line(error: &tch::TchError) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or_default().to_owned()
}
