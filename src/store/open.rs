//! Opening and closing the database.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use fs_err as fs;
use sqlx::{
    Connection as _, Sqlite, Transaction,
    sqlite::{
        SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
    },
};
use tokio::sync::watch;

use crate::files::{self, UPLOADED_MARKER};

use super::{
    Error, backfill, file_system,
    identity::{self, Identity},
    lock::DirectoryLock,
    migration_copy,
    turns::Turns,
    verify::{BUSY_TIMEOUT, MIGRATOR, verify, with_suffix},
};

/// Name of the database in the data directory.
pub(super) const FILE: &str = "visage.db";

/// Connections for reading; each is a thread, and a read takes well under a millisecond.
const READERS: u32 = 4;

/// The database. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    pub(super) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    directory: PathBuf,
    pub(super) writer: SqlitePool,
    pub(super) turns: Turns,
    readers: SqlitePool,
    pub(super) events: watch::Sender<i64>,
    pub(super) alias_events: watch::Sender<u64>,
    pub(super) versions: watch::Sender<u64>,
    identity: Identity,
    lock: DirectoryLock,
}

/// Treatment of files that do not belong to the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mismatch {
    Refuse,
    Adopt,
}

impl Store {
    /// Opens the store in a data directory, which is created if it is missing, and migrates its
    /// schema.
    ///
    /// Reads the whole database once to verify it. Until [`Store::close`], or until the last handle
    /// is dropped, no other server can open the directory.
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::NewerDatabase`], [`Error::ForeignDatabase`],
    /// [`Error::DatabaseMissing`], [`Error::ForeignFiles`], [`Error::NetworkFileSystem`] and
    /// [`Error::CorruptDatabase`], each before any change; [`Error::Directory`],
    /// [`Error::DiskFull`], [`Error::Migration`].
    pub(crate) async fn open(directory: &Path) -> Result<Self, Error> {
        Self::open_with(directory, Mismatch::Refuse).await
    }

    /// As [`Store::open`], for a database that does not belong to the files in the directory, or is
    /// older than them; a missing one is created.
    ///
    /// # Errors
    /// As [`Store::open`], except [`Error::DatabaseMissing`] and [`Error::ForeignFiles`].
    pub(crate) async fn adopt(directory: &Path) -> Result<Self, Error> {
        Self::open_with(directory, Mismatch::Adopt).await
    }

    async fn open_with(directory: &Path, mismatch: Mismatch) -> Result<Self, Error> {
        create_directory(directory).map_err(|source| Error::directory(directory, source))?;
        file_system::check(directory)?;
        let lock = DirectoryLock::acquire(directory)?;
        let path = directory.join(FILE);
        let exists = path
            .try_exists()
            .map_err(|source| Error::directory(directory, source))?;
        let found = remains(directory).filter(|_| mismatch == Mismatch::Refuse);
        let mut schema = None;
        if exists {
            let verified = verify(&path).await?;
            if found.is_some() {
                identity::check(directory, &path, verified.identity.as_ref())?;
            }
            schema = Some(verified.schema);
        } else {
            if let Some(found) = found {
                return Err(Error::DatabaseMissing {
                    path,
                    found: directory.join(found),
                });
            }
            create(directory, &path).await?;
        }

        let writer = pool(1).connect_with(options(&path)).await?;
        let copy = match schema {
            Some(schema) => migration_copy::create(&writer, &path, schema).await?,
            None => None,
        };
        MIGRATOR.run(&writer).await?;
        backfill::run(&writer).await?;
        if let Some(copy) = copy {
            migration_copy::remove_earlier(&path, &copy)?;
        }
        let identity = Identity::advance(&writer).await?;
        let readers = pool(READERS)
            .connect_with(options(&path).read_only(true))
            .await?;

        let inner = Inner {
            directory: directory.to_owned(),
            writer,
            turns: Turns::new(),
            readers,
            events: watch::Sender::new(0),
            alias_events: watch::Sender::new(0),
            versions: watch::Sender::new(0),
            identity,
            lock,
        };
        let store = Self {
            inner: Arc::new(inner),
        };
        store.inner.events.send_replace(store.global_head().await?);
        let alias_head = store.alias_head().await?;
        store.inner.alias_events.send_replace(alias_head);
        let versions = store.count_versions().await?;
        store.inner.versions.send_replace(versions);
        Ok(store)
    }

    /// Marks the files beside the database as its own. Their directories exist.
    ///
    /// # Errors
    /// [`Error::Directory`], [`Error::DiskFull`].
    pub(crate) fn mark_files(&self) -> Result<(), Error> {
        let directory = &self.inner.directory;
        let marked = self.inner.identity.write(directory);
        marked.map_err(|source| Error::directory(directory, source))
    }

    /// Finishes running writes, merges the write-ahead log into the database and unlocks the data
    /// directory.
    ///
    /// Every later call on any clone fails with [`Error::Closed`].
    pub(crate) async fn close(&self) -> Result<(), Error> {
        // Readers first: the last connection to close merges the log, and a reader must not write.
        self.inner.readers.close().await;
        self.inner.writer.close().await;
        self.inner.lock.release(&self.inner.directory)
    }

    /// Starts a transaction, a consistent view for one or several reads.
    pub(super) async fn read(&self) -> Result<Transaction<'static, Sqlite>, Error> {
        Ok(self.inner.readers.begin().await?)
    }
}

/// Returns a directory with data that only the database explains: its absence is a mistake.
fn remains(directory: &Path) -> Option<&'static str> {
    let has_entries = |name: &str| {
        let entries = fs::read_dir(directory.join(name));
        entries.is_ok_and(|entries| {
            let mut names = entries.flatten().map(|entry| entry.file_name());
            names.any(|name| !name.to_string_lossy().starts_with('.'))
        })
    };
    // Directories that others filled have no marker.
    let has_datasets = directory.join("datasets").join(UPLOADED_MARKER).is_file();
    let names = ["artifacts/sha256"]
        .into_iter()
        .chain(has_datasets.then_some("datasets"));
    names.into_iter().find(|name| has_entries(name))
}

fn pool(connections: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .min_connections(1)
        .max_connections(connections)
        // Local connections do not become stale, and prepared statements are worth keeping.
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        // After some failures, such as a full disk, SQLite has already rolled back. The rollback of
        // sqlx then fails, and sqlx would count the connection as inside a transaction forever. The
        // ping waits for that rollback; the pool opens a new connection instead.
        .after_release(|connection, _| {
            Box::pin(async move {
                connection.ping().await?;
                Ok(!connection.is_in_transaction())
            })
        })
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        // macOS only: fsync alone leaves data in the drive's cache there.
        .pragma("fullfsync", "ON")
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT)
}

/// Creates the directory and makes the new directory entries durable; otherwise a power loss could
/// remove the whole database.
fn create_directory(directory: &Path) -> std::io::Result<()> {
    let missing: Vec<&Path> = directory
        .ancestors()
        .take_while(|ancestor| !ancestor.as_os_str().is_empty() && !ancestor.exists())
        .collect();
    if missing.is_empty() {
        warn_if_others_can_read(directory);
    } else {
        files::create_private_dir(directory)?;
    }
    for created in missing {
        files::sync_directory(files::parent_dir(created))?;
    }
    Ok(())
}

/// Warns if the images, models and secrets of an existing directory are readable by others.
fn warn_if_others_can_read(directory: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = fs::metadata(directory).map(|found| found.permissions().mode() & 0o777);
    if let Ok(mode) = mode
        && mode & 0o077 != 0
    {
        tracing::warn!(
            directory = %directory.display(),
            mode = format!("{mode:o}"),
            "other users of the machine can read the data directory; `chmod 700` restricts it to the server's user"
        );
    }
}

/// Creates a new database under a temporary name and renames it, so that `visage.db` is always
/// complete.
async fn create(directory: &Path, path: &Path) -> Result<(), Error> {
    let draft = path.with_extension("db.new");
    for suffix in ["", "-journal", "-wal", "-shm"] {
        files::remove_if_exists(&with_suffix(&draft, suffix))
            .map_err(|source| Error::directory(directory, source))?;
    }
    let draft_pool = pool(1)
        .connect_with(options(&draft).create_if_missing(true))
        .await?;
    MIGRATOR.run(&draft_pool).await?;
    draft_pool.close().await;
    fs::rename(&draft, path)
        .and_then(|()| files::sync_directory(directory))
        .map_err(|source| Error::directory(directory, source))
}
