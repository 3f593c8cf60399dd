//! Failures of a training, with their reasons for programs.

use crate::{dataset, model, proto::v1, training::ranks};

use super::{full_checkpoint, link::PipeError};

#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Dataset(#[from] dataset::Error),
    #[error(transparent)]
    Init(model::Error),
    #[error(transparent)]
    Model(#[from] model::Error),
    #[error(
        "the training loss must be finite, got {loss} at step {step} of epoch {epoch}; lower spec.optimizer.learning_rate, {learning_rate}"
    )]
    NonFiniteLoss {
        epoch: u32,
        step: usize,
        loss: f64,
        learning_rate: f64,
    },
    #[error(
        "the validation loss must be finite in one epoch; lower spec.optimizer.learning_rate, {learning_rate}"
    )]
    NonFiniteValidation { learning_rate: f64 },
    #[error(
        "failed to read {skipped} of {all} images in epoch {epoch}, more than spec.dataset.max_reject_share, {limit}; first: {example}"
    )]
    TooManySkipped {
        epoch: u32,
        skipped: u64,
        all: usize,
        limit: f64,
        example: String,
    },
    #[error("failed to resolve the spec: {0}")]
    Spec(String),
    #[error(transparent)]
    Pipe(#[from] PipeError),
    #[error("spec.max_duration ended before the first checkpoint; raise it")]
    OutOfTime,
    #[error(
        "the training needs about {needed_mb} MB of memory, but {free_mb} MB are free; lower spec.batch_size, {batch_size}, or spec.input_size, {input_size}",
        needed_mb = needed >> 20,
        free_mb = free >> 20
    )]
    TooLittleMemory {
        needed: u64,
        free: u64,
        batch_size: usize,
        input_size: u32,
    },
    #[error(transparent)]
    Ranks(#[from] ranks::Error),
    #[error("failed to read the state of rank 0: {0}")]
    Setup(String),
    #[error("cancelled")]
    Cancelled,
}

impl From<tch::TchError> for Error {
    fn from(error: tch::TchError) -> Self {
        Error::Model(error.into())
    }
}

impl From<full_checkpoint::Error> for Error {
    fn from(error: full_checkpoint::Error) -> Self {
        match error {
            full_checkpoint::Error::Model(error) => Error::Model(error),
            full_checkpoint::Error::Pipe(error) => Error::Pipe(error),
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
            Error::Model(_)
            | Error::Spec(_)
            | Error::Pipe(_)
            | Error::Ranks(_)
            | Error::Setup(_) => v1::StopReason::Internal,
            Error::Cancelled => v1::StopReason::UserStop,
        }
    }

    /// Returns `Failure.reason` of the API.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Error::Dataset(error) => dataset_reason(error),
            Error::Init(_) => "INIT_WEIGHTS",
            Error::TooManySkipped { .. } => "TOO_MANY_UNREADABLE",
            Error::NonFiniteLoss { .. } | Error::NonFiniteValidation { .. } => "NON_FINITE_LOSS",
            Error::Model(error) if error.is_out_of_memory() => "OUT_OF_MEMORY",
            Error::Model(model::Error::Io(error)) if crate::files::is_disk_full(error) => {
                "DISK_FULL"
            }
            Error::Model(_)
            | Error::Spec(_)
            | Error::Pipe(_)
            | Error::Ranks(_)
            | Error::Setup(_) => "INTERNAL",
            // Not OUT_OF_MEMORY, which would halve the batch: more memory may be free later.
            Error::TooLittleMemory { .. } => "NOT_ENOUGH_MEMORY",
            Error::OutOfTime => "MAX_DURATION",
            Error::Cancelled => "CANCELLED",
        }
    }
}

fn dataset_reason(error: &dataset::Error) -> &'static str {
    use dataset::Error as E;
    match error {
        E::NotFound { .. } => "DATASET_NOT_FOUND",
        E::NoRoots { .. } | E::OutsideRoots { .. } | E::Root { .. } => "DATASET_OUTSIDE_ROOTS",
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
        | E::TooManyImages { .. }
        | E::TooManySearched { .. } => "BAD_DATASET_OPTIONS",
        E::Io(_) | E::NoResponse { .. } => "DATASET_UNREADABLE",
        E::Cancelled => "CANCELLED",
    }
}
