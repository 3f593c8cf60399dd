//! What can go wrong with weights, in sentences that name the way out.

use std::io;
use std::path::PathBuf;

use super::hub::HubError;

/// Why weights could not be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file could not be read; the inner error names the path.
    #[error("cannot read weights: {0}")]
    Io(#[from] io::Error),
    /// The path leads to a directory, a pipe or a device.
    #[error("weights file {path} is not a regular file")]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// The file is larger than any weights this program loads.
    #[error("weights file {path} has {size} bytes, more than the limit of {limit}")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
        /// The largest size read, in bytes.
        limit: u64,
    },
    /// The file's content is not weights that can be read.
    #[error("cannot load weights from {path}: {reason}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with the content.
        reason: FormatError,
    },
    /// The file's SHA-256 is not the one it must have.
    #[error(
        "weights file {path} has SHA-256 {found}, expected {expected}; it is damaged or another file, fetch it again"
    )]
    Digest {
        /// The file.
        path: PathBuf,
        /// The expected digest, or its first digits.
        expected: String,
        /// The whole digest found.
        found: String,
    },
    /// A value is not a number, or not one that the network can compute with.
    #[error(
        "weights hold values that no training can continue from: {0}; a training that diverged leaves such values, so give a checkpoint from before"
    )]
    Values(String),
    /// Names or shapes differ from those of the model.
    #[error("weights do not fit the model: {0}")]
    Shapes(String),
    /// A file found in the search for ImageNet weights is of another model.
    #[error("{path}: {reason}")]
    Misfit {
        /// The file.
        path: PathBuf,
        /// The [`Error::Shapes`].
        reason: Box<Error>,
    },
    /// No local file, and the hub could not give one.
    #[error(
        "cannot fetch ImageNet's weights, timm/resnet18.tv_in1k, from the Hugging Face hub: {reason}; three ways out: (1) put torchvision's \
         resnet18-f37072fd.pth, whose SHA-256 begins with f37072fd, into {place}, (2) let the server reach the hub, or the mirror \
         that HF_ENDPOINT names, (3) begin with the face model that is part of this program: init STARTER"
    )]
    Unavailable {
        /// What failed.
        reason: HubError,
        /// The directory in which the file would be found, in words if none is configured.
        place: String,
    },
}

/// What is wrong with the content of a weights file.
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
    /// A program of TorchScript.
    #[error(
        "it is a TorchScript archive, a program whose tensors have no names of their own; give a state dict instead: \
         torch.save(model.state_dict(), 'weights.pth') of the model that was scripted, or of a model of Visage \
         `visage models export --format safetensors`"
    )]
    TorchScript,
    /// Python objects where tensors were looked for.
    #[error(
        "it has Python objects and no network of tensors: {objects}; Python objects are never executed here, \
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
    /// The key of the request names no place in the file.
    #[error(
        "key must name a place in the file that has tensors, got {key}; it has tensors at {places}"
    )]
    UnknownKey {
        /// As requested, quoted.
        key: String,
        /// The keys that there are, quoted.
        places: String,
    },
    /// The names of one network have more than one prefix.
    #[error("the names of its tensors have different prefixes: {found}; {way_out}")]
    MixedPrefixes {
        /// The prefixes with counts and examples.
        found: String,
        /// The remedy.
        way_out: String,
    },
    /// The pickle names something other than the few objects that tensors need.
    #[error(
        "its pickle names the Python object {name}, which is never executed here; only tensors are read, \
         so save the bare state dict: torch.save(model.state_dict(), 'weights.pth')"
    )]
    ForbiddenGlobal {
        /// Module and name, quoted.
        name: String,
    },
    /// Valid perhaps, but nothing a state dict needs.
    #[error("{0} is not supported")]
    Unsupported(String),
    /// The bytes contradict the format.
    #[error("the file is damaged: {0}")]
    Malformed(String),
    /// A small file that would fill the memory.
    #[error("its tensors unfold to more than {limit} bytes, {factor} times the file's own size")]
    Unfolds {
        /// The most bytes allowed for this file.
        limit: usize,
        /// The allowed ratio of tensor bytes to file bytes.
        factor: usize,
    },
}

impl FormatError {
    /// A [`FormatError::Malformed`] from anything that reads as text.
    pub(super) fn malformed(reason: impl Into<String>) -> Self {
        Self::Malformed(reason.into())
    }
}

/// Longest part of a name in a message, in characters.
const LONGEST: usize = 80;

/// The name of a Python object, as [`quoted`].
pub(super) fn quoted_object(module: &str, name: &str) -> String {
    // Cut before they are joined: a name may have megabytes, and be listed many times.
    let cut = |part: &str| -> String { part.chars().take(LONGEST).collect() };
    quoted(&format!("{}.{}", cut(module), cut(name)))
}

/// A name from an untrusted file, quoted, escaped and cut to a printable length.
pub(super) fn quoted(name: &str) -> String {
    let mut short: String = name.chars().take(LONGEST).collect();
    if short.len() < name.len() {
        short.push('…');
    }
    format!("{short:?}")
}
