//! Errors of the store.

use std::{
    error::Error as StdError,
    io,
    path::{Path, PathBuf},
};

use sqlx::migrate::MigrateError;

use crate::{names::state_in_words, proto::v1::TrainingState};

/// SQLite's result code for a full file system.
const SQLITE_FULL: &str = "13";
/// SQLite's extended result code for a full file system that prevents growing the shared memory
/// file.
const SQLITE_IOERR_SHMSIZE: &str = "4874";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{what} {name} does not exist")]
    NotFound { what: &'static str, name: String },
    #[error("{name} already exists; choose another id")]
    AlreadyExists { name: String },
    #[error("the training name must be trainings/{{id}}, got {name:?}")]
    BadName { name: String },
    #[error(
        "request id {request_id} was used for a different request that started {training}; use a fresh id for a new request"
    )]
    RequestIdReused {
        request_id: String,
        training: String,
    },
    #[error(
        "{name} is in use by {training}; cancel the training, or wait for its end, before deleting the dataset"
    )]
    DatasetInUse { name: String, training: String },
    #[error(
        "{name} is in use by the {} {}; point {} to another version, or delete {}, before deleting the version",
        plural(.aliases, "alias", "aliases"), .aliases.join(", "),
        plural(.aliases, "it", "them"), plural(.aliases, "it", "them")
    )]
    VersionHasAlias { name: String, aliases: Vec<String> },
    #[error(
        "{name} is in use by {training}, which starts from it; cancel the training, or wait for its end, before deleting the version"
    )]
    VersionStartsTraining { name: String, training: String },
    #[error(
        "{dataset} was created from upload {upload:?}; upload the archive again for another dataset"
    )]
    UploadUsed { upload: String, dataset: String },
    #[error(
        "{limit} datasets are already being unpacked or scanned, which is the limit; try again when one of them is ready"
    )]
    TooManyDatasets { limit: usize },
    #[error(
        "{limit} trainings are already queued, which is the limit; try again when one of them has started"
    )]
    QueueFull { limit: usize },
    #[error(
        "{limit} trainings exist, which is the limit (max_stored_trainings of the server); delete ended trainings that are not needed"
    )]
    TrainingsFull { limit: usize },
    #[error(
        "{limit} datasets exist, which is the limit (max_datasets of the server); delete datasets that are not needed"
    )]
    DatasetsFull { limit: usize },
    #[error(
        "models/{model} has {limit} aliases, which is the limit; delete aliases that are not needed, or point an existing one to the version"
    )]
    TooManyAliases { model: String, limit: usize },
    #[error("{name} {} and cannot change", state_in_words(*state))]
    Terminal { name: String, state: TrainingState },
    #[error("{name} {}; {}", state_in_words(*state), remedy(*state))]
    StillLive { name: String, state: TrainingState },
    #[error(
        "events of the kind {kind} cannot be appended: the store writes them itself or does not keep them"
    )]
    NotAppendable { kind: &'static str },
    #[error(
        "alias {alias} must point to version {expected} as expected (0 means none), got {found}; read the alias again before changing it"
    )]
    AliasMoved {
        alias: String,
        expected: u64,
        found: u64,
    },
    #[error(
        "cursor {cursor} is past the head {head}; it comes from another training or another database"
    )]
    CursorAhead { cursor: u64, head: u64 },
    #[error("token {token:?} is not valid: {problem}")]
    BadToken {
        token: String,
        problem: &'static str,
    },
    #[error(
        "{} was written by a newer version of visage (schema {found}, the newest supported one is {known}); \
         nothing was changed: run that version, or use another data directory", path.display()
    )]
    NewerDatabase {
        path: PathBuf,
        found: i64,
        known: i64,
    },
    #[error("{} is not a visage database: {problem}; nothing was changed: restore {} from a backup, or use another data directory", path.display(), path.display())]
    ForeignDatabase { path: PathBuf, problem: String },
    #[error(
        "{} is missing, although {} has data of an earlier database; nothing was changed: restore the database from a backup, \
         use another data directory, or start with an empty database after `visage repair {} --adopt`", path.display(), found.display(), path.parent().unwrap_or(path).display()
    )]
    DatabaseMissing { path: PathBuf, found: PathBuf },
    #[error(
        "{} does not belong to the files in {}: {problem}; nothing was changed: restore database and files from the same backup, \
         or run `visage repair {}`, which shows what differs", path.display(), directory.display(), data_dir.display()
    )]
    ForeignFiles {
        path: PathBuf,
        data_dir: PathBuf,
        directory: PathBuf,
        problem: String,
    },
    #[error(
        "{} is on a network file system ({kind}), which would damage the database; use a directory on a local disk", directory.display()
    )]
    NetworkFileSystem {
        directory: PathBuf,
        kind: &'static str,
    },
    #[error("{} does not exist; name the data directory of a server", path.display())]
    NoDatabase { path: PathBuf },
    #[error("{} is damaged: {problem}; nothing was changed: restore it from a backup", path.display())]
    CorruptDatabase { path: PathBuf, problem: String },
    #[error("the stored {what} {name} is damaged")]
    Damaged {
        what: &'static str,
        name: String,
        source: prost::DecodeError,
    },
    #[error("another server is running in {}; stop it, or use another data directory", directory.display())]
    Locked { directory: PathBuf },
    #[error("failed to use the data directory {}", directory.display())]
    Directory {
        directory: PathBuf,
        source: io::Error,
    },
    #[error("the disk of the database is full; nothing was written: free disk space and try again")]
    DiskFull {
        source: Box<dyn StdError + Send + Sync>,
    },
    #[error("failed to migrate the database")]
    Migration { source: MigrateError },
    #[error("the store is closed")]
    Closed,
    #[error("failed to access the database")]
    Database { source: sqlx::Error },
}

/// The step before a training that has not ended can be deleted.
fn remedy(state: TrainingState) -> &'static str {
    if matches!(state, TrainingState::Cancelling | TrainingState::Stopping) {
        "delete it when it has ended, in a moment"
    } else {
        "cancel it before deleting it"
    }
}

impl Error {
    /// Returns true if another attempt may succeed, for example after another process has released
    /// the database.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Database { .. })
    }

    /// Returns the error for a missing training.
    pub(super) fn no_training(id: &str) -> Self {
        Self::NotFound {
            what: "training",
            name: format!("trainings/{id}"),
        }
    }

    /// Returns the error for a missing dataset.
    pub(super) fn no_dataset(id: &str) -> Self {
        Self::NotFound {
            what: "dataset",
            name: format!("datasets/{id}"),
        }
    }

    /// Returns the error for a failure of the data directory.
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

/// Returns the word for one item or for several.
fn plural(items: &[String], one: &'static str, several: &'static str) -> &'static str {
    if items.len() == 1 { one } else { several }
}

/// Returns true if SQLite or the file system reports a full disk.
fn is_full(error: &sqlx::Error) -> bool {
    if let sqlx::Error::Io(error) = error {
        return is_out_of_space(error);
    }
    let code = error.as_database_error().and_then(|error| error.code());
    matches!(code.as_deref(), Some(SQLITE_FULL | SQLITE_IOERR_SHMSIZE))
}

/// Returns true if the file system or the quota is full.
fn is_out_of_space(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}
