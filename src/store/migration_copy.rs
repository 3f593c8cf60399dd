//! A copy of the database before its schema is migrated, so that an upgrade can be undone.
//!
//! `visage.db.before-5` is the database before the migration to schema 5. It is kept until the next
//! upgrade has succeeded.

use std::path::{Path, PathBuf};

use fs_err as fs;
use sqlx::sqlite::SqlitePool;

use crate::files;

use super::{
    Error,
    verify::{MIGRATOR, with_suffix},
};

const INFIX: &str = ".before-";

/// Copies a database of `schema` if this binary has later ones, and returns the path of the copy.
///
/// # Errors
/// [`Error::DiskFull`], [`Error::Directory`], or a failure of the database. Nothing has changed.
pub(super) async fn create(
    writer: &SqlitePool,
    database: &Path,
    schema: i64,
) -> Result<Option<PathBuf>, Error> {
    let next = MIGRATOR.iter().map(|migration| migration.version);
    let Some(next) = next.filter(|version| *version > schema).min() else {
        return Ok(None);
    };
    let copy = with_suffix(database, &format!("{INFIX}{next}"));
    let draft = with_suffix(&copy, ".new");
    let failed = |source| Error::directory(files::parent_dir(database), source);
    files::remove_if_exists(&draft).map_err(failed)?;
    vacuum_into(writer, &draft).await?;
    fs::File::open(&draft)
        .and_then(|file| file.sync_all())
        .and_then(|()| fs::rename(&draft, &copy))
        .and_then(|()| files::sync_directory(files::parent_dir(database)))
        .map_err(failed)?;
    tracing::info!(copy = %copy.display(), "copied the database before its migration");
    Ok(Some(copy))
}

/// Removes the copies of earlier upgrades, after the migration has succeeded.
///
/// # Errors
/// [`Error::Directory`].
pub(super) fn remove_earlier(database: &Path, kept: &Path) -> Result<(), Error> {
    let directory = files::parent_dir(database);
    let prefix = with_suffix(database, INFIX);
    let prefix = prefix.file_name().unwrap_or_default().to_string_lossy();
    let remove = || {
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with(prefix.as_ref()) && path != kept {
                files::remove_if_exists(&path)?;
            }
        }
        Ok(())
    };
    remove().map_err(|source| Error::directory(directory, source))
}

/// Copies a database as it is now, without its write-ahead log, to a new file.
pub(super) async fn vacuum_into<'e>(
    database: impl sqlx::Executor<'e, Database = sqlx::Sqlite>,
    to: &Path,
) -> Result<(), Error> {
    sqlx::query("VACUUM INTO ?")
        .bind(to.to_string_lossy().into_owned())
        .execute(database)
        .await?;
    Ok(())
}
