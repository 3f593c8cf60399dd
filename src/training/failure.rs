//! Why a training ends without a result, for people and for programs.

use std::io;

use crate::{dataset, model, proto::v1};

use super::full_checkpoint;

/// Why a training ended without a result.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Dataset(#[from] dataset::Error),
    #[error(transparent)]
    Init(model::Error),
    #[error(transparent)]
    Model(#[from] model::Error),
    #[error(
        "the training loss of epoch {epoch} became {loss} at step {step}; lower spec.optimizer.learning_rate ({learning_rate})"
    )]
    NonFiniteLoss {
        epoch: u32,
        step: usize,
        loss: f64,
        learning_rate: f64,
    },
    #[error(
        "the validation loss was never finite; lower spec.optimizer.learning_rate ({learning_rate})"
    )]
    NonFiniteValidation { learning_rate: f64 },
    #[error(
        "{skipped} of {all} images of epoch {epoch} could not be read, more than spec.dataset.max_reject_share allows ({limit}); for example {example}"
    )]
    TooManySkipped {
        epoch: u32,
        skipped: u64,
        all: usize,
        limit: f64,
        example: String,
    },
    #[error("the spec that the server sent is not usable: {0}")]
    Spec(String),
    #[error("the server is gone: {0}")]
    Pipe(io::Error),
    #[error("spec.max_duration passed before there was a checkpoint; raise it")]
    OutOfTime,
    #[error(
        "the training needs about {needed_mb} MB of memory and {free_mb} MB are free; lower spec.batch_size ({batch_size}) or spec.input_size ({input_size})",
        needed_mb = needed >> 20,
        free_mb = free >> 20
    )]
    TooLittleMemory {
        needed: u64,
        free: u64,
        batch_size: usize,
        input_size: u32,
    },
    #[error("cancelled")]
    Cancelled,
}

impl From<full_checkpoint::Failure> for Error {
    fn from(failure: full_checkpoint::Failure) -> Self {
        match failure {
            full_checkpoint::Failure::Model(error) => Error::Model(error),
            full_checkpoint::Failure::Pipe(error) => Error::Pipe(error),
        }
    }
}

impl Error {
    pub(super) fn stop_reason(&self) -> v1::StopReason {
        match self {
            Error::Dataset(_) | Error::Init(_) | Error::TooManySkipped { .. } => {
                v1::StopReason::DataError
            }
            Error::Model(error) if error.is_out_of_memory() => v1::StopReason::OutOfMemory,
            Error::NonFiniteLoss { .. } | Error::NonFiniteValidation { .. } => {
                v1::StopReason::NonFiniteLoss
            }
            Error::TooLittleMemory { .. } => v1::StopReason::OutOfMemory,
            Error::OutOfTime => v1::StopReason::MaxDuration,
            Error::Model(_) | Error::Spec(_) | Error::Pipe(_) => v1::StopReason::Internal,
            Error::Cancelled => v1::StopReason::UserStop,
        }
    }

    /// For programs; see `Failure.reason` in the API.
    pub(super) fn reason(&self) -> String {
        match self {
            Error::Dataset(error) => dataset_reason(error).to_owned(),
            Error::Init(_) => "INIT_WEIGHTS".to_owned(),
            Error::TooManySkipped { .. } => "TOO_MANY_UNREADABLE".to_owned(),
            Error::NonFiniteLoss { .. } | Error::NonFiniteValidation { .. } => {
                "NON_FINITE_LOSS".to_owned()
            }
            Error::Model(error) if error.is_out_of_memory() => "OUT_OF_MEMORY".to_owned(),
            Error::Model(model::Error::Io(error)) if crate::files::is_disk_full(error) => {
                "DISK_FULL".to_owned()
            }
            Error::Model(_) | Error::Spec(_) | Error::Pipe(_) => "INTERNAL".to_owned(),
            // Another reason than when memory runs out, for which a batch would be halved: this says what is free now, which may be more later.
            Error::TooLittleMemory { .. } => "NOT_ENOUGH_MEMORY".to_owned(),
            Error::OutOfTime => "MAX_DURATION".to_owned(),
            Error::Cancelled => "CANCELLED".to_owned(),
        }
    }
}

fn dataset_reason(error: &dataset::Error) -> &'static str {
    use dataset::Error as E;
    match error {
        E::NotFound { .. } => "DATASET_NOT_FOUND",
        E::NoRoots | E::OutsideRoots { .. } | E::Root { .. } => "DATASET_OUTSIDE_ROOTS",
        E::Empty { .. } => "DATASET_EMPTY",
        E::TooManyRejects { .. } => "TOO_MANY_REJECTS",
        E::TooFewTraining { .. } => "TOO_FEW_IMAGES",
        E::NoValidation { .. } => "NO_VALIDATION_IMAGES",
        E::NotADataset { .. }
        | E::AmbiguousManifest { .. }
        | E::AmbiguousSplit { .. }
        | E::Manifest { .. }
        | E::MissingColumns { .. } => "BAD_DATASET",
        E::Option { .. }
        | E::PatternOfManifest { .. }
        | E::ColumnsOfDirectory { .. }
        | E::TooManyImages { .. } => "BAD_DATASET_OPTIONS",
        E::Io(_) => "DATASET_UNREADABLE",
        E::Cancelled => "CANCELLED",
    }
}
