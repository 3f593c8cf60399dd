use tonic::{Code, Status};

use super::{
    build::{Row, invalid, invalid_image, unavailable_weights},
    conditions::shutting_down,
};
use crate::{
    artifacts, dataset, datasets, disk::DiskLow, evaluation::plots, files, inference, model,
    registry, store, telemetry::logging, training::supervisor,
};

impl From<store::Error> for Status {
    fn from(error: store::Error) -> Self {
        use store::Error as E;
        let row = match &error {
            E::NotFound { .. } => Row::new(Code::NotFound, "NOT_FOUND"),
            E::AlreadyExists { .. } => Row::new(Code::AlreadyExists, "ALREADY_EXISTS"),
            E::BadName { .. } => Row::new(Code::InvalidArgument, "BAD_NAME"),
            E::RequestIdReused { .. } => Row::new(Code::InvalidArgument, "REQUEST_ID_REUSED"),
            E::QueueFull { .. } => Row::retry(Code::ResourceExhausted, "TRAINING_QUEUE_FULL"),
            E::Terminal { .. } => Row::new(Code::FailedPrecondition, "TRAINING_TERMINAL"),
            E::StillLive { .. } => Row::new(Code::FailedPrecondition, "TRAINING_LIVE"),
            E::DatasetInUse { .. } => Row::new(Code::FailedPrecondition, "DATASET_IN_USE"),
            E::VersionHasAlias { .. } | E::VersionStartsTraining { .. } => {
                Row::new(Code::FailedPrecondition, "VERSION_IN_USE")
            }
            E::UploadUsed { .. } => Row::new(Code::FailedPrecondition, "UPLOAD_USED"),
            E::TooManyDatasets { .. } => Row::retry(Code::ResourceExhausted, "TOO_MANY_DATASETS"),
            E::TrainingsFull { .. } => Row::new(Code::ResourceExhausted, "TRAININGS_FULL"),
            E::DatasetsFull { .. } => Row::new(Code::ResourceExhausted, "DATASETS_FULL"),
            E::TooManyAliases { .. } => Row::new(Code::ResourceExhausted, "TOO_MANY_ALIASES"),
            E::AliasMoved { .. } => Row::new(Code::Aborted, "ALIAS_MOVED"),
            E::CursorAhead { .. } => Row::new(Code::OutOfRange, "CURSOR_AHEAD"),
            E::BadToken { .. } => Row::new(Code::InvalidArgument, "BAD_TOKEN"),
            E::DiskFull { .. } => Row::retry(Code::ResourceExhausted, "DISK_FULL"),
            E::Closed => return shutting_down(),
            E::Damaged { .. } | E::CorruptDatabase { .. } => {
                Row::new(Code::DataLoss, "DATABASE_DAMAGED")
            }
            E::NotAppendable { .. }
            | E::NewerDatabase { .. }
            | E::ForeignDatabase { .. }
            | E::ForeignFiles { .. }
            | E::NetworkFileSystem { .. }
            | E::NoDatabase { .. }
            | E::DatabaseMissing { .. }
            | E::Locked { .. }
            | E::Directory { .. }
            | E::Migration { .. }
            | E::Database { .. } => {
                tracing::error!(?error, "the database failed");
                Row::new(Code::Internal, "DATABASE")
            }
        };
        row.status(error)
    }
}

impl From<artifacts::Error> for Status {
    fn from(error: artifacts::Error) -> Self {
        use artifacts::Error as E;
        let row = match &error {
            E::NotFound { .. } => Row::new(Code::NotFound, "FILE_NOT_FOUND"),
            E::Corrupt { .. } => Row::new(Code::DataLoss, "CHECKPOINT_CORRUPT"),
            E::DiskFull { .. } => Row::retry(Code::ResourceExhausted, "DISK_FULL"),
            E::BadDigest { .. } | E::TooLarge { .. } | E::File { .. } | E::Store { .. } => {
                Row::new(Code::Internal, "ARTIFACTS")
            }
        };
        row.status(error)
    }
}

impl From<registry::Error> for Status {
    fn from(error: registry::Error) -> Self {
        use registry::Error as E;
        match error {
            E::Store(error) => error.into(),
            E::Artifacts(error) => error.into(),
            E::Model(error) => model(&error),
            E::Inference(error) => error.into(),
            E::NoLiveVersion { .. } => {
                Row::new(Code::FailedPrecondition, "NO_LIVE_MODEL").status(error)
            }
            E::NoFile { .. } => Row::new(Code::DataLoss, "FILE_NOT_FOUND").status(error),
        }
    }
}

impl From<datasets::Error> for Status {
    fn from(error: datasets::Error) -> Self {
        use datasets::Error as E;
        let row = match error {
            E::Store(error) => return error.into(),
            E::Path(error) => return invalid_dataset(&error, ""),
            E::Reading(description) => return invalid("age_pattern", description),
            E::NoUpload { .. } => Row::new(Code::NotFound, "NO_UPLOAD"),
            E::NoSample { .. } => Row::new(Code::NotFound, "NOT_FOUND"),
            E::Incomplete { .. } => Row::new(Code::FailedPrecondition, "UPLOAD_INCOMPLETE"),
            E::WrongOffset { .. } => Row::new(Code::Aborted, "UPLOAD_OFFSET"),
            E::TooLong { .. } | E::UploadSize { .. } => {
                Row::new(Code::OutOfRange, "UPLOAD_TOO_LARGE")
            }
            E::TooManyUploads { .. } => Row::retry(Code::ResourceExhausted, "TOO_MANY_UPLOADS"),
            E::DiskLow(low) => return disk_low(&low),
            E::QuotaUsed { .. } => Row::new(Code::ResourceExhausted, "DATASET_BYTES"),
            E::Busy { .. } | E::InUse { .. } => Row::retry(Code::Aborted, "UPLOAD_BUSY"),
            E::Io(cause) if files::is_disk_full(&cause) => {
                return Row::retry(Code::ResourceExhausted, "DISK_FULL")
                    .status("the server's disk is full; free some space and try again");
            }
            E::Io(_) => Row::new(Code::Internal, "DATASET_FILES"),
        };
        row.status(error)
    }
}

/// A request that needs more disk space than is free.
fn disk_low(low: &DiskLow) -> Status {
    Row::new(Code::ResourceExhausted, "DISK_LOW").status(low)
}

impl From<supervisor::Error> for Status {
    fn from(error: supervisor::Error) -> Self {
        use supervisor::Error as E;
        match error {
            E::Store(error) => error.into(),
            E::Artifacts(error) => error.into(),
            E::DiskLow(low) => disk_low(&low),
            E::Disk(_) => Row::new(Code::Internal, "DISK").status(error),
            E::NotOwner { .. } => Row::new(Code::PermissionDenied, "NOT_OWNER").status(error),
            E::AlreadyEnded { .. } => {
                Row::new(Code::FailedPrecondition, "TRAINING_TERMINAL").status(error)
            }
            E::NotNow { .. } => {
                Row::retry(Code::FailedPrecondition, "TRAINING_NOT_NOW").status(error)
            }
        }
    }
}

impl From<inference::Error> for Status {
    fn from(error: inference::Error) -> Self {
        inference_error(&error, "images")
    }
}

/// The status of a request whose images are in `field`.
pub(crate) fn inference_error(error: &inference::Error, field: &str) -> Status {
    use inference::Error as E;
    let row = match error {
        E::Image { index, source } => {
            return invalid_image(field, *index, &source.to_string(), &error.to_string());
        }
        E::Pixels { index, reason } => {
            return invalid_image(field, *index, reason, &error.to_string());
        }
        E::File { .. } => Row::new(Code::Internal, "FILE_UNREADABLE"),
        E::QueueFull { .. } => Row::retry(Code::ResourceExhausted, "QUEUE_FULL"),
        E::ShareFull { .. } => Row::retry(Code::ResourceExhausted, "CLIENT_SHARE_FULL"),
        E::WaitTooLong { .. } => Row::retry(Code::ResourceExhausted, "WAIT_TOO_LONG"),
        E::DeadlineExceeded => Row::new(Code::DeadlineExceeded, "DEADLINE_EXCEEDED"),
        E::Model { source, .. } => return model(source),
        E::NotFinite { .. } => Row::new(Code::DataLoss, "MODEL_DAMAGED"),
        E::EngineGone => Row::new(Code::Internal, "ENGINE_GONE"),
    };
    row.status(error)
}

impl From<plots::Error> for Status {
    fn from(error: plots::Error) -> Self {
        Row::new(Code::Internal, "PLOTS").status(error)
    }
}

impl From<logging::Error> for Status {
    fn from(error: logging::Error) -> Self {
        match error {
            logging::Error::Filter { .. }
            | logging::Error::Level { .. }
            | logging::Error::Empty
            | logging::Error::TooLong { .. } => invalid("directives", logging::chain(&error)),
            logging::Error::NotInitialized | logging::Error::AlreadyInitialized => {
                Row::new(Code::FailedPrecondition, "LOG_LEVEL_FIXED").status(error)
            }
        }
    }
}

fn model(error: &model::Error) -> Status {
    use model::Error as E;
    let row = match error {
        _ if error.is_out_of_memory() => Row::retry(Code::ResourceExhausted, "OUT_OF_MEMORY"),
        E::Manifest { .. } | E::TrainingImages { .. } | E::Checksum { .. } | E::Weights(_) => {
            Row::new(Code::DataLoss, "CHECKPOINT_CORRUPT")
        }
        E::Precision { .. } => Row::new(Code::FailedPrecondition, "PRECISION_UNAVAILABLE"),
        E::Torch(_) | E::Io(_) | E::Device { .. } | E::Trainable(_) => {
            Row::new(Code::Internal, "MODEL")
        }
    };
    row.status(error)
}

/// A dataset that cannot be used, as a violation of the field that does not fit it. `prefix`
/// precedes the names of the fields, such as `spec.dataset.`.
pub(crate) fn invalid_dataset(error: &dataset::Error, prefix: &str) -> Status {
    use dataset::Error as E;
    let field = if matches!(error, E::PatternOfManifest { .. }) {
        "age_pattern"
    } else if matches!(error, E::ColumnsOfDirectory { .. }) {
        "columns"
    } else if let E::TooManySearched { for_split, .. } = error {
        if !for_split {
            // A field of the request, not of its dataset.
            return invalid("skip_near_duplicates", error);
        }
        "split_grouping"
    } else {
        "path"
    };
    invalid(&format!("{prefix}{field}"), error)
}

/// Initial weights that are neither on the server nor on the hub.
pub(crate) fn weights_unavailable(error: &model::weights::Error) -> Status {
    use model::weights::Error as E;
    let metadata = match error {
        E::Unavailable { reason, place } => {
            vec![("cause", reason.to_string()), ("place", place.clone())]
        }
        E::Io(_)
        | E::NotAFile { .. }
        | E::TooLarge { .. }
        | E::Format { .. }
        | E::Digest { .. }
        | E::Values(_)
        | E::Shapes(_)
        | E::Misfit { .. } => Vec::new(),
    };
    unavailable_weights(&error.to_string(), &metadata)
}

/// Initial weights that cannot be used.
pub(crate) fn invalid_weights(error: &model::Error) -> Status {
    use model::weights::{Error, FormatError};
    let is_about_key = matches!(
        error,
        model::Error::Weights(Error::Format {
            reason: FormatError::UnknownKey { .. },
            ..
        })
    );
    let field = if is_about_key {
        "spec.init.key"
    } else {
        "spec.init.path"
    };
    invalid(field, error)
}
