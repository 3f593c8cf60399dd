//! Reading a database without being its server: for backups and checks.
//!
//! Nothing in the data directory changes. Beside a running server, the database is read through a
//! connection of its own. The database of a stopped server is read under a shared lock of the
//! directory; if a crash left a write-ahead log, which SQLite would merge into the file, both are
//! copied first.

use std::{
    io,
    path::{Path, PathBuf},
};

use fs_err as fs;
use prost::Message as _;
use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};

use crate::proto::worker_v1::ResumePoint;

use super::{
    Error,
    datasets::{self, NumberedDataset},
    identity::Identity,
    lock::SharedLock,
    migration_copy::vacuum_into,
    open::FILE,
    verify::{BUSY_TIMEOUT, Verified, check_header, verify_content, with_suffix},
};

/// The first schema with resume points.
const RESUME_POINTS_SCHEMA: i64 = 2;
/// The first schema with datasets.
const DATASETS_SCHEMA: i64 = 3;

/// A database that is open for reading.
#[derive(Debug)]
pub(crate) struct Snapshot {
    connection: SqliteConnection,
    verified: Verified,
    is_live: bool,
    /// Held while the database is read in place.
    _lock: Option<SharedLock>,
}

/// A file that the database names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reference {
    pub sha256: String,
    /// The checkpoint or version that the file belongs to.
    pub owner: String,
}

/// Files that the database names.
#[derive(Clone, Debug, Default)]
pub(crate) struct References {
    /// Artifacts, ordered by digest; several owners may have one.
    pub artifacts: Vec<Reference>,
    pub datasets: Vec<NumberedDataset>,
    /// Ids of live trainings, with their full checkpoints in `work`.
    pub resume_points: Vec<(String, ResumePoint)>,
}

impl Snapshot {
    /// Opens the database of a data directory. `scratch` is an empty directory.
    ///
    /// # Errors
    /// [`Error::NoDatabase`], [`Error::NewerDatabase`], [`Error::ForeignDatabase`],
    /// [`Error::CorruptDatabase`], [`Error::Directory`].
    pub(crate) async fn of_data_dir(data_dir: &Path, scratch: &Path) -> Result<Self, Error> {
        let path = data_dir.join(FILE);
        if !path.is_file() {
            return Err(Error::NoDatabase { path });
        }
        let Some(lock) = SharedLock::acquire(data_dir)? else {
            return Self::open(&path, false, true, None).await;
        };
        let log = with_suffix(&path, "-wal");
        if !fs::metadata(&log).is_ok_and(|log| log.len() > 0) {
            return Self::open(&path, true, false, Some(lock)).await;
        }
        let copy = scratch.join(FILE);
        fs::copy(&path, &copy)
            .and_then(|_| fs::copy(&log, with_suffix(&copy, "-wal")))
            .map_err(|source| Error::directory(scratch, source))?;
        Self::open(&copy, false, false, None).await
    }

    /// Opens a database file that nothing writes to, such as that of a backup.
    ///
    /// # Errors
    /// As [`Snapshot::of_data_dir`].
    pub(crate) async fn of_file(path: &Path) -> Result<Self, Error> {
        if !path.is_file() {
            return Err(Error::NoDatabase {
                path: path.to_owned(),
            });
        }
        Self::open(path, true, false, None).await
    }

    async fn open(
        path: &Path,
        immutable: bool,
        is_live: bool,
        lock: Option<SharedLock>,
    ) -> Result<Self, Error> {
        check_header(path)?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .read_only(true)
            .immutable(immutable)
            .busy_timeout(BUSY_TIMEOUT);
        let mut connection = options.connect().await?;
        let verified = verify_content(path, &mut connection).await?;
        Ok(Self {
            connection,
            verified,
            is_live,
            _lock: lock,
        })
    }

    /// Returns true if a server may change the database and the files meanwhile.
    pub(crate) fn is_live(&self) -> bool {
        self.is_live
    }

    /// The schema version.
    pub(crate) fn schema(&self) -> i64 {
        self.verified.schema
    }

    /// `None` for a schema without an identity.
    pub(crate) fn identity(&self) -> Option<&Identity> {
        self.verified.identity.as_ref()
    }

    /// Writes a consistent, durable copy to a new file.
    ///
    /// # Errors
    /// [`Error::DiskFull`], [`Error::Directory`], or a failure of the database.
    pub(crate) async fn copy_to(&mut self, path: &Path) -> Result<(), Error> {
        vacuum_into(&mut self.connection, path).await?;
        fs::File::open(path)
            .and_then(|file| file.sync_all())
            .map_err(|source| Error::directory(path, source))
    }

    /// Checks the whole database, and returns what is damaged.
    ///
    /// # Errors
    /// A failure of the system.
    pub(crate) async fn problems(&mut self) -> Result<Vec<String>, Error> {
        let mut found: Vec<String> = sqlx::query_scalar("PRAGMA integrity_check(20)")
            .fetch_all(&mut self.connection)
            .await?;
        found.retain(|line| line != "ok");
        let rows: Vec<(String, Option<i64>, String)> = sqlx::query_as(
            "SELECT \"table\", rowid, parent FROM pragma_foreign_key_check LIMIT 20",
        )
        .fetch_all(&mut self.connection)
        .await?;
        found.extend(rows.into_iter().map(|(table, row, parent)| {
            let row = row.map(|row| row.to_string()).unwrap_or_default();
            format!("row {row} of {table} refers to a missing row of {parent}")
        }));
        Ok(found)
    }

    /// Returns the files that the database names.
    ///
    /// # Errors
    /// [`Error::Damaged`], or a failure of the database.
    pub(crate) async fn references(&mut self) -> Result<References, Error> {
        let mut read = self.connection.begin().await?;
        let artifacts: Vec<(String, String)> = sqlx::query_as(
            "SELECT sha256, 'trainings/' || trainings.id || '/checkpoints/' || epoch AS owner \
             FROM checkpoint_files JOIN trainings ON trainings.number = checkpoint_files.training \
             UNION SELECT sha256, 'models/' || model || '/versions/' || number FROM version_files \
             ORDER BY 1, 2",
        )
        .fetch_all(&mut *read)
        .await?;
        let mut found = References {
            artifacts: artifacts
                .into_iter()
                .map(|(sha256, owner)| Reference { sha256, owner })
                .collect(),
            ..Default::default()
        };
        if self.verified.schema >= DATASETS_SCHEMA {
            found.datasets = datasets::all(&mut read).await?;
        }
        if self.verified.schema < RESUME_POINTS_SCHEMA {
            return Ok(found);
        }
        let points: Vec<(String, Vec<u8>)> = sqlx::query_as(
            "SELECT id, resume_points.message FROM resume_points \
             JOIN trainings ON number = training ORDER BY number",
        )
        .fetch_all(&mut *read)
        .await?;
        for (id, message) in points {
            let point =
                ResumePoint::decode(message.as_slice()).map_err(|source| Error::Damaged {
                    what: "resume point",
                    name: format!("trainings/{id}"),
                    source,
                })?;
            found.resume_points.push((id, point));
        }
        Ok(found)
    }

    /// Closes the database and unlocks the directory.
    pub(crate) async fn close(self) -> Result<(), Error> {
        Ok(self.connection.close().await?)
    }
}

/// Path of the database in a data directory.
pub(crate) fn database_path(data_dir: &Path) -> PathBuf {
    data_dir.join(FILE)
}

/// Moves the copy of a database, which is complete and durable, to its place in a data directory.
///
/// # Errors
/// A failure of the file system.
pub(crate) fn place_database(copy: &Path, data_dir: &Path) -> io::Result<()> {
    fs::rename(copy, data_dir.join(FILE))?;
    crate::files::sync_directory(data_dir)
}
