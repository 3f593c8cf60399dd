//! Errors of weights; messages include the remedy.

use std::{io, path::PathBuf};

use super::hub::HubError;

/// Weights that cannot be read or used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The inner error names the path.
    #[error("failed to read weights: {0}")]
    Io(#[from] io::Error),
    /// The path leads to a directory, a pipe or a device.
    #[error("weights file {path} is not a regular file")]
    NotAFile { path: PathBuf },
    #[error("weights file {path} has {size} bytes, more than the limit of {limit}")]
    TooLarge {
        path: PathBuf,
        size: u64,
        limit: u64,
    },
    #[error("failed to load weights from {path}: {reason}")]
    Format { path: PathBuf, reason: FormatError },
    #[error(
        "weights file {path} has SHA-256 {found}, expected {expected}; it is damaged or another file; download it again"
    )]
    Digest {
        path: PathBuf,
        /// The expected digest, or its first digits.
        expected: String,
        found: String,
    },
    /// A value that is not finite, or a negative variance.
    #[error(
        "weights have values that no training can start from: {0}; a diverged training leaves such values, so use an earlier checkpoint"
    )]
    Values(String),
    /// Names or shapes differ from those of the model.
    #[error("weights do not fit the model: {0}")]
    Shapes(String),
    /// A file found in the search for ImageNet weights is of another model.
    #[error("{path}: {reason}")]
    Misfit { path: PathBuf, reason: Box<Error> },
    /// No local file, and the hub did not provide it.
    #[error(
        "the ImageNet weights are not on the server, and the Hugging Face hub is not available: {reason}; \
         start from the built-in face model (STARTER), put torchvision's file resnet18-f37072fd.pth into {place}, \
         or let the server reach the hub or a mirror that HF_ENDPOINT names"
    )]
    Unavailable {
        reason: HubError,
        /// The directory where the file is looked for, in words if none is configured.
        place: String,
    },
}

/// Content of a weights file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// Neither a torch archive nor safetensors.
    #[error("it is neither a torch .pth archive nor a safetensors file")]
    Unknown,
    /// A bare pickle, as torch wrote before version 1.6.
    #[error(
        "it is in torch's old format, a bare pickle; convert it once with python -c \
         \"import torch; torch.save(torch.load('old.pth', weights_only=True), 'new.pth')\""
    )]
    OldPickle,
    #[error(
        "it is a TorchScript archive, a program whose tensors have no names of their own; give a state dict instead: \
         torch.save(model.state_dict(), 'weights.pth') of the model that was scripted, or of a model of Visage \
         `visage models export --format safetensors`"
    )]
    TorchScript,
    /// Python objects in place of tensors.
    #[error(
        "it has Python objects instead of a network's tensors: {objects}; Python objects are never executed here, \
         so save the state dict: torch.save(model.state_dict(), 'weights.pth')"
    )]
    Objects {
        /// Keys and the objects' names, quoted.
        objects: String,
    },
    /// More than one place in the file fits the network.
    #[error("it has several networks that fit, at {places}; set spec.init.key to one of them")]
    SeveralNetworks {
        /// The keys, quoted.
        places: String,
    },
    #[error(
        "key must name a place in the file that has tensors, got {key}; it has tensors at {places}"
    )]
    UnknownKey {
        key: String,
        /// The keys of the file, quoted.
        places: String,
    },
    #[error("the names of its tensors have different prefixes: {found}; {remedy}")]
    MixedPrefixes {
        /// The prefixes with counts and examples.
        found: String,
        remedy: String,
    },
    #[error(
        "its pickle names the Python object {name}, which is never executed here; only tensors are read, \
         so save the bare state dict: torch.save(model.state_dict(), 'weights.pth')"
    )]
    ForbiddenGlobal { name: String },
    /// Possibly valid, but not needed by a state dict.
    #[error("{0} is not supported")]
    Unsupported(String),
    /// The bytes contradict the format.
    #[error("the file is damaged: {0}")]
    Malformed(String),
    /// A small file whose tensors would fill the memory.
    #[error("its tensors expand to more than {limit} bytes, {factor} times the file's own size")]
    Expands {
        /// The most bytes allowed for this file.
        limit: usize,
        /// The allowed ratio of tensor bytes to file bytes.
        factor: usize,
    },
}

impl FormatError {
    pub(super) fn malformed(reason: impl Into<String>) -> Self {
        Self::Malformed(reason.into())
    }
}
