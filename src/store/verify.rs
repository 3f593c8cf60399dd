//! Verification of an existing database before it is opened for writing.

use std::{
    io::{ErrorKind, Read},
    path::{Path, PathBuf},
    time::Duration,
};

use fs_err as fs;
use sqlx::{
    ConnectOptions as _, Connection as _, SqliteConnection, migrate::Migrator,
    sqlite::SqliteConnectOptions,
};

use super::{
    Error,
    identity::{self, Identity},
};

/// All schema versions of this binary.
pub(super) static MIGRATOR: Migrator = sqlx::migrate!("src/store/migrations");

/// `PRAGMA application_id` of the database, "VISA"; the first migration sets it.
const APPLICATION_ID: i64 = 0x5649_5341;

/// First bytes of every SQLite file.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// Time to wait for a lock that another tool (a backup, the sqlite3 shell) holds on the file.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Properties of a verified database.
#[derive(Clone, Debug)]
pub(super) struct Verified {
    /// The last migration that was applied.
    pub(super) schema: i64,
    /// `None` for a schema without an identity.
    pub(super) identity: Option<Identity>,
}

/// Refuses a file that is not of SQLite.
pub(super) fn check_header(path: &Path) -> Result<(), Error> {
    let foreign = |problem: &str| Error::ForeignDatabase {
        path: path.to_owned(),
        problem: problem.to_owned(),
    };
    let mut magic = [0; MAGIC.len()];
    let read = fs::File::open(path).and_then(|mut file| file.read_exact(&mut magic));
    match read {
        Ok(()) if &magic == MAGIC => Ok(()),
        Ok(()) => Err(foreign("it is not an SQLite file")),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
            Err(foreign("it is too short for an SQLite file"))
        }
        Err(error) => Err(Error::directory(path.parent().unwrap_or(path), error)),
    }
}

/// Refuses a database that this binary must not write to, without changing it.
pub(super) async fn verify(path: &Path) -> Result<Verified, Error> {
    check_header(path)?;

    // With an empty write-ahead log the file is complete, and `immutable` prevents SQLite from
    // creating its side files. After a crash the log holds a part of the data, perhaps the row of a
    // newer schema, so it must be read. SQLite then leaves its index of the log (`-shm`), which it
    // rebuilds each time; database and log do not change.
    let has_log = fs::metadata(with_suffix(path, "-wal")).is_ok_and(|log| log.len() > 0);
    let options = SqliteConnectOptions::new()
        .filename(path)
        .read_only(true)
        .immutable(!has_log)
        .busy_timeout(BUSY_TIMEOUT);
    let mut connection = options.connect().await.map_err(|e| damaged(path, e))?;
    let verdict = verify_content(path, &mut connection).await;
    let closed = connection.close().await;
    let verified = verdict?;
    closed?;
    Ok(verified)
}

pub(super) async fn verify_content(
    path: &Path,
    connection: &mut SqliteConnection,
) -> Result<Verified, Error> {
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
    let schema = applied.last().map_or(0, |(version, _)| *version);
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
        .fetch_one(&mut *connection)
        .await
        .map_err(|e| damaged(path, e))?;
    if verdict != "ok" {
        return Err(Error::CorruptDatabase {
            path: path.to_owned(),
            problem: verdict,
        });
    }
    let identity = match schema >= identity::FIRST_SCHEMA {
        true => Some(
            Identity::read(connection)
                .await
                .map_err(|e| damaged(path, e))?,
        ),
        false => None,
    };
    Ok(Verified { schema, identity })
}

/// Distinguishes SQLite's "malformed" (11) and "not a database" (26), with their extended codes,
/// from failures of the system.
fn damaged(path: &Path, error: sqlx::Error) -> Error {
    let code = error
        .as_database_error()
        .and_then(|e| e.code())
        .and_then(|code| code.parse::<u32>().ok());
    match code.map(|extended| extended & 0xff) {
        // 1 is "no such table": the application id without the tables.
        Some(1 | 11 | 26) => Error::CorruptDatabase {
            path: path.to_owned(),
            problem: error.to_string(),
        },
        _ => error.into(),
    }
}

/// Returns the path with a suffix appended to the file name.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
