//! What can go wrong in the store.

use std::error::Error as StdError;
use std::io;
use std::path::{Path, PathBuf};

use sqlx::migrate::MigrateError;

use crate::proto::v1::TrainingState;

/// SQLite's result code for a file system without room.
const SQLITE_FULL: &str = "13";
/// SQLite's extended result code for no room to grow the shared memory file.
const SQLITE_IOERR_SHMSIZE: &str = "4874";

/// Failures of the store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing has this name.
    #[error("{what} {name} does not exist")]
    NotFound {
        /// Kind of resource, such as `training`.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// The name is taken.
    #[error("{name} already exists; choose another id")]
    AlreadyExists {
        /// Such as `trainings/{id}`.
        name: String,
    },
    /// A training's name is not of its form.
    #[error("the training name {name:?} is not of the form trainings/{{id}}")]
    BadName {
        /// The name as given.
        name: String,
    },
    /// A request id came again with another request.
    #[error(
        "request id {request_id} was used for a different request that started {training}; use a fresh id for a new request"
    )]
    RequestIdReused {
        /// The id.
        request_id: String,
        /// The training that the first request started.
        training: String,
    },
    /// A training that has not ended reads the dataset.
    #[error(
        "{name} is read by {training}, which has not ended; cancel it, or wait for its end, before deleting the dataset"
    )]
    DatasetInUse {
        /// `datasets/{id}`.
        name: String,
        /// `trainings/{id}`.
        training: String,
    },
    /// Another dataset was made of the upload.
    #[error(
        "{dataset} was made of the upload {upload:?}; upload the archive again for another dataset"
    )]
    UploadUsed {
        /// The upload's id.
        upload: String,
        /// `datasets/{id}`.
        dataset: String,
    },
    /// As many datasets are being unpacked and scanned as may.
    #[error(
        "{limit} datasets are being unpacked and scanned already, which is the limit; try again when one of them is ready"
    )]
    TooManyDatasets {
        /// The limit.
        limit: usize,
    },
    /// As many trainings wait as may.
    #[error(
        "{limit} trainings already wait in the queue, which is the limit; try again when one of them has started"
    )]
    QueueFull {
        /// The limit.
        limit: usize,
    },
    /// The training has ended and no longer changes.
    #[error("{name} has ended as {} and cannot change", state.as_str_name())]
    Terminal {
        /// `trainings/{id}`.
        name: String,
        /// The final state it is in.
        state: TrainingState,
    },
    /// The training has not ended.
    #[error("{name} is still live ({}); cancel it first", state.as_str_name())]
    StillLive {
        /// `trainings/{id}`.
        name: String,
        /// The state it is in.
        state: TrainingState,
    },
    /// An event of a kind that the store appends itself or never keeps.
    #[error(
        "events of the kind {kind} cannot be appended: the store writes them itself or does not keep them"
    )]
    NotAppendable {
        /// The kind's field name in `TrainingEvent`.
        kind: &'static str,
    },
    /// The alias is not where the caller believes it to be.
    #[error(
        "alias {alias} points to version {found} instead of {expected} (0 means none); look again before changing it"
    )]
    AliasMoved {
        /// The alias.
        alias: String,
        /// Where the caller believes it to point; 0 for nowhere.
        expected: u64,
        /// Where it points; 0 for nowhere.
        found: u64,
    },
    /// The cursor is past the last event.
    #[error(
        "cursor {cursor} is past the head {head}; it comes from another training or another database"
    )]
    CursorAhead {
        /// The cursor as given.
        cursor: u64,
        /// The position of the last event.
        head: u64,
    },
    /// The token is not one of ours.
    #[error("token {token:?} is not valid: {problem}")]
    BadToken {
        /// The token as given.
        token: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The database was written by a newer version.
    #[error(
        "{} was written by a newer version of visage (schema {found}, this one knows up to {known}); \
         nothing was changed: run that version, or use another data directory", path.display()
    )]
    NewerDatabase {
        /// The database file.
        path: PathBuf,
        /// The newest schema version in it.
        found: i64,
        /// The newest schema version that this binary knows.
        known: i64,
    },
    /// The file is not a database of ours.
    #[error("{} is not a visage database: {problem}; nothing was changed: move the file away, or use another data directory", path.display())]
    ForeignDatabase {
        /// The database file.
        path: PathBuf,
        /// What tells so.
        problem: String,
    },
    /// The database is damaged.
    #[error("{} is damaged: {problem}; nothing was changed: restore it from a backup", path.display())]
    CorruptDatabase {
        /// The database file.
        path: PathBuf,
        /// What SQLite found.
        problem: String,
    },
    /// A stored message cannot be decoded.
    #[error("the stored {what} {name} is damaged")]
    Damaged {
        /// Kind of message, such as `training`.
        what: &'static str,
        /// Its name.
        name: String,
        /// What is wrong with it.
        source: prost::DecodeError,
    },
    /// Another server uses the data directory.
    #[error("another server runs in {}; stop it, or use another data directory", directory.display())]
    Locked {
        /// The data directory.
        directory: PathBuf,
    },
    /// The data directory cannot be used.
    #[error("the data directory {} cannot be used", directory.display())]
    Directory {
        /// The data directory.
        directory: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The disk has no room for the write; nothing of it was kept.
    #[error("the disk of the database is full; nothing was written: make room and try again")]
    DiskFull {
        /// What reported it.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// A migration failed; it was rolled back.
    #[error("the database could not be brought up to date")]
    Migration {
        /// What SQLite said.
        source: MigrateError,
    },
    /// The store was closed, or the runtime that it runs on is shutting down.
    #[error("the store is closed")]
    Closed,
    /// Any other failure of the database.
    #[error("the database failed")]
    Database {
        /// What SQLite or sqlx said.
        source: sqlx::Error,
    },
}

impl Error {
    /// Whether the same may work at another try, such as when nobody else has the database locked.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Database { .. })
    }

    /// The error for a training that does not exist.
    pub(super) fn no_training(id: &str) -> Self {
        Self::NotFound {
            what: "training",
            name: format!("trainings/{id}"),
        }
    }

    /// The error for a dataset that does not exist.
    pub(super) fn no_dataset(id: &str) -> Self {
        Self::NotFound {
            what: "dataset",
            name: format!("datasets/{id}"),
        }
    }

    /// The error for a data directory that cannot be used.
    pub(super) fn directory(directory: &Path, source: io::Error) -> Self {
        if is_out_of_space(&source) {
            return Self::DiskFull {
                source: source.into(),
            };
        }
        Self::Directory {
            directory: directory.to_owned(),
            source,
        }
    }
}

impl From<sqlx::Error> for Error {
    fn from(source: sqlx::Error) -> Self {
        if is_full(&source) {
            return Self::DiskFull {
                source: source.into(),
            };
        }
        if matches!(source, sqlx::Error::PoolClosed) {
            return Self::Closed;
        }
        Self::Database { source }
    }
}

impl From<MigrateError> for Error {
    fn from(source: MigrateError) -> Self {
        if let MigrateError::Execute(cause) | MigrateError::ExecuteMigration(cause, _) = &source
            && is_full(cause)
        {
            return Self::DiskFull {
                source: source.into(),
            };
        }
        Self::Migration { source }
    }
}

/// Whether SQLite or the system below it had no room.
fn is_full(error: &sqlx::Error) -> bool {
    if let sqlx::Error::Io(error) = error {
        return is_out_of_space(error);
    }
    let code = error.as_database_error().and_then(|error| error.code());
    matches!(code.as_deref(), Some(SQLITE_FULL | SQLITE_IOERR_SHMSIZE))
}

/// Whether the file system or the user's quota has no room.
fn is_out_of_space(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}
