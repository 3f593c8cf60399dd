//! Errors of the model.

use std::path::PathBuf;

use super::{precision::Precision, weights};

/// A failure of libtorch, or weights, files or settings that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("libtorch: {}", first_line(.0))]
    Torch(#[from] tch::TchError),
    #[error(transparent)]
    Weights(#[from] weights::Error),
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error("failed to read manifest {path}: {reason}")]
    Manifest { path: String, reason: String },
    #[error("failed to read {}: {reason}", .path.display())]
    TrainingImages { path: PathBuf, reason: String },
    /// The weights are not those that the manifest describes.
    #[error(
        "{path} is damaged: its SHA-256 is {found}, expected {expected}; restore it from a backup or train again"
    )]
    Checksum {
        path: String,
        expected: String,
        found: String,
    },
    #[error("device {requested} is not available: {reason}")]
    Device { requested: String, reason: String },
    /// The device or the network does not support the requested precision.
    #[error("precision {} is not supported: {reason}; set `precision` to auto", .precision.name())]
    Precision {
        precision: Precision,
        reason: &'static str,
    },
    /// `trainable` names an unknown layer, or its layers leave a gap.
    #[error("trainable layers {0}")]
    Trainable(String),
}

impl Error {
    /// Returns whether the device or the machine had too little memory.
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
            | Error::TrainingImages { .. }
            | Error::Checksum { .. }
            | Error::Device { .. }
            | Error::Precision { .. }
            | Error::Trainable(_) => false,
        }
    }
}

/// The message without the C++ stack trace that libtorch appends.
fn first_line(error: &tch::TchError) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or_default().to_owned()
}
