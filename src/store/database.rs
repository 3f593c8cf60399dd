//! The database file: opening, checking and closing it, and the one way to write to it.

use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fs_err as fs;
use sqlx::migrate::Migrator;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection, Sqlite, SqliteConnection, Transaction};
use tokio::sync::watch;

use super::Error;
use super::lock::DirectoryLock;

/// All schema versions that this binary knows.
static MIGRATOR: Migrator = sqlx::migrate!("src/store/migrations");

/// Name of the database in the data directory.
const FILE: &str = "visage.db";

/// `PRAGMA application_id` of our databases, "VISA"; the first migration sets it.
const APPLICATION_ID: i64 = 0x5649_5341;

/// How every SQLite file begins.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// Connections for reading; each is a thread, and a read takes well under a millisecond.
const READERS: u32 = 4;

/// How long to wait for a lock that a foreign tool (a backup, the sqlite3 shell) holds on the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// A handle to the store; clones share it. See the module's documentation for what it promises.
#[derive(Clone, Debug)]
pub struct Store {
    pub(super) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    directory: PathBuf,
    pub(super) writer: SqlitePool,
    readers: SqlitePool,
    pub(super) events: watch::Sender<i64>,
    pub(super) alias_events: watch::Sender<u64>,
    pub(super) versions: watch::Sender<u64>,
    lock: DirectoryLock,
}

impl Store {
    /// Opens the store in a data directory, which is created when it is missing, and brings its schema up to date.
    ///
    /// Reads the whole database once to see that it is sound. Until [`Store::close`], or until the last handle is dropped, no other
    /// server can open the directory. Errors: [`Error::Locked`], [`Error::NewerDatabase`], [`Error::ForeignDatabase`] and
    /// [`Error::CorruptDatabase`], each before anything was changed; [`Error::Directory`], [`Error::DiskFull`], [`Error::Migration`].
    pub async fn open(directory: &Path) -> Result<Self, Error> {
        create_directory(directory).map_err(|source| Error::directory(directory, source))?;
        let lock = DirectoryLock::acquire(directory)?;
        let path = directory.join(FILE);
        let exists = path
            .try_exists()
            .map_err(|source| Error::directory(directory, source))?;
        if exists {
            check(&path).await?;
        } else {
            create(directory, &path).await?;
        }

        let writer = pool(1).connect_with(options(&path)).await?;
        MIGRATOR.run(&writer).await?;
        let readers = pool(READERS)
            .connect_with(options(&path).read_only(true))
            .await?;

        let inner = Inner {
            directory: directory.to_owned(),
            writer,
            readers,
            events: watch::Sender::new(0),
            alias_events: watch::Sender::new(0),
            versions: watch::Sender::new(0),
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

    /// Finishes the writes under way, folds the write-ahead log into the database and lets the data directory go.
    ///
    /// Every later call on any clone fails with [`Error::Closed`].
    pub async fn close(&self) -> Result<(), Error> {
        // Readers first: the last connection to close folds the log, and a reader may not write.
        self.inner.readers.close().await;
        self.inner.writer.close().await;
        self.inner.lock.release(&self.inner.directory)
    }

    /// A consistent view for one or several reads.
    pub(super) async fn read(&self) -> Result<Transaction<'static, Sqlite>, Error> {
        Ok(self.inner.readers.begin().await?)
    }
}

/// A transaction that writes. Dropped without a commit it leaves no trace.
pub(super) struct Write {
    inner: Arc<Inner>,
    transaction: Transaction<'static, Sqlite>,
    /// Cursor of the last event appended in it.
    pub(super) appended: Option<i64>,
    /// Number of the last alias event appended in it.
    pub(super) alias_appended: Option<u64>,
    pub(super) inserted_versions: u64,
}

impl Write {
    /// Waits for the connection that writes and takes SQLite's write lock at once, so that what is read in the transaction stays true.
    pub(super) async fn begin(inner: Arc<Inner>) -> Result<Self, Error> {
        let transaction = inner.writer.begin_with("BEGIN IMMEDIATE").await?;
        Ok(Self {
            inner,
            transaction,
            appended: None,
            alias_appended: None,
            inserted_versions: 0,
        })
    }

    /// The connection inside the transaction.
    pub(super) fn connection(&mut self) -> &mut SqliteConnection {
        &mut self.transaction
    }

    /// Makes everything durable, then wakes those who follow.
    pub(super) async fn commit(self) -> Result<(), Error> {
        self.transaction.commit().await?;
        if let Some(cursor) = self.appended {
            self.inner.events.send_replace(cursor);
        }
        if let Some(number) = self.alias_appended {
            self.inner.alias_events.send_replace(number);
        }
        if self.inserted_versions > 0 {
            let versions = &self.inner.versions;
            versions.send_modify(|count| *count += self.inserted_versions);
        }
        Ok(())
    }
}

/// Runs a write to its end even when the caller stops waiting.
///
/// Without it a caller that is dropped between the commit and the wake-up would leave followers asleep beside a new event. The task
/// holds a connection, and [`Store::close`] waits for all connections.
pub(crate) async fn run_detached<T, E>(
    work: impl Future<Output = Result<T, E>> + Send + 'static,
) -> Result<T, E>
where
    T: Send + 'static,
    E: From<Error> + Send + 'static,
{
    match tokio::spawn(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(Error::Closed.into()),
    }
}

fn pool(connections: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .min_connections(1)
        .max_connections(connections)
        // Local connections do not go stale, and prepared statements are worth keeping.
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        // After some failures, a full disk among them, SQLite has rolled back by itself. sqlx's own rollback then fails, and it would count
        // the connection as inside a transaction for ever. The ping waits for that rollback; the pool opens a new connection instead.
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

/// Creates the directory and makes the new directory entries durable; without that a power loss could take the whole database.
fn create_directory(directory: &Path) -> std::io::Result<()> {
    let missing: Vec<&Path> = directory
        .ancestors()
        .take_while(|ancestor| !ancestor.as_os_str().is_empty() && !ancestor.exists())
        .collect();
    fs::create_dir_all(directory)?;
    for created in missing {
        sync_directory(match created.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        })?;
    }
    Ok(())
}

/// Makes renames in a directory durable.
fn sync_directory(directory: &Path) -> std::io::Result<()> {
    if cfg!(unix) {
        fs::File::open(directory)?.sync_all()?;
    }
    Ok(())
}

/// Builds a new database aside and renames it into place, so that `visage.db` is never half made.
async fn create(directory: &Path, path: &Path) -> Result<(), Error> {
    let draft = path.with_extension("db.new");
    for suffix in ["", "-journal", "-wal", "-shm"] {
        match fs::remove_file(beside(&draft, suffix)) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(Error::directory(directory, error));
            }
            _ => {}
        }
    }
    let draft_pool = pool(1)
        .connect_with(options(&draft).create_if_missing(true))
        .await?;
    MIGRATOR.run(&draft_pool).await?;
    draft_pool.close().await;
    fs::rename(&draft, path)
        .and_then(|()| sync_directory(directory))
        .map_err(|source| Error::directory(directory, source))
}

/// Refuses a database that this binary must not write to, without a change to it.
async fn check(path: &Path) -> Result<(), Error> {
    let foreign = |problem: &str| Error::ForeignDatabase {
        path: path.to_owned(),
        problem: problem.to_owned(),
    };
    let mut magic = [0; MAGIC.len()];
    let read = fs::File::open(path).and_then(|mut file| file.read_exact(&mut magic));
    match read {
        Ok(()) if &magic == MAGIC => {}
        Ok(()) => return Err(foreign("it is not an SQLite file")),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
            return Err(foreign("it is too short for an SQLite file"));
        }
        Err(error) => return Err(Error::directory(path.parent().unwrap_or(path), error)),
    }

    // With nothing in the write-ahead log the file alone is the whole truth, and `immutable` keeps SQLite from creating its side files.
    // After a crash the log holds part of the truth, perhaps the row that tells of a newer schema, so it must be read. SQLite then leaves its
    // index of the log (`-shm`) behind, which it builds anew each time; database and log stay as they are.
    let has_log = fs::metadata(beside(path, "-wal")).is_ok_and(|log| log.len() > 0);
    let looking = SqliteConnectOptions::new()
        .filename(path)
        .read_only(true)
        .immutable(!has_log)
        .busy_timeout(BUSY_TIMEOUT);
    let mut connection = looking.connect().await.map_err(|e| damaged(path, e))?;
    let verdict = check_content(path, &mut connection).await;
    let closed = connection.close().await;
    verdict?;
    Ok(closed?)
}

async fn check_content(path: &Path, connection: &mut SqliteConnection) -> Result<(), Error> {
    let application: i64 = sqlx::query_scalar("PRAGMA application_id")
        .fetch_one(&mut *connection)
        .await
        .map_err(|e| damaged(path, e))?;
    if application != APPLICATION_ID {
        return Err(Error::ForeignDatabase {
            path: path.to_owned(),
            problem: format!(
                "its application id is {application:#x} instead of {APPLICATION_ID:#x}"
            ),
        });
    }
    let applied: Vec<(i64, Vec<u8>)> =
        sqlx::query_as("SELECT version, checksum FROM _sqlx_migrations ORDER BY version")
            .fetch_all(&mut *connection)
            .await
            .map_err(|e| damaged(path, e))?;
    let known = MIGRATOR.iter().map(|m| m.version).max().unwrap_or(0);
    for (version, checksum) in applied.into_iter().rev() {
        match MIGRATOR.iter().find(|m| m.version == version) {
            None => {
                return Err(Error::NewerDatabase {
                    path: path.to_owned(),
                    found: version,
                    known,
                });
            }
            Some(ours) if *ours.checksum != *checksum => {
                return Err(Error::ForeignDatabase {
                    path: path.to_owned(),
                    problem: format!(
                        "its schema {version} differs from this binary's, as after a development build"
                    ),
                });
            }
            Some(_) => {}
        }
    }
    let verdict: String = sqlx::query_scalar("PRAGMA quick_check(1)")
        .fetch_one(connection)
        .await
        .map_err(|e| damaged(path, e))?;
    if verdict != "ok" {
        return Err(Error::CorruptDatabase {
            path: path.to_owned(),
            problem: verdict,
        });
    }
    Ok(())
}

/// Tells SQLite's "malformed" (11) and "not a database" (26), with their extended codes, from failures of the machine.
fn damaged(path: &Path, error: sqlx::Error) -> Error {
    let code = error
        .as_database_error()
        .and_then(|e| e.code())
        .and_then(|code| code.parse::<u32>().ok());
    match code.map(|extended| extended & 0xff) {
        Some(11 | 26) => Error::CorruptDatabase {
            path: path.to_owned(),
            problem: error.to_string(),
        },
        // "No such table": our application id without our tables.
        Some(1) => Error::CorruptDatabase {
            path: path.to_owned(),
            problem: error.to_string(),
        },
        _ => error.into(),
    }
}

/// A file whose name is the path's with something appended.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
