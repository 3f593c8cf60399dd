//! Identity of the data directory: a random id and the number of starts, in the database and in
//! files beside the artifacts and the datasets.
//!
//! After a half restore, the database belongs to other files, or it is older than them. A start
//! would then move the files that it does not know aside, and refer to files that do not exist. The
//! comparison finds this before anything changes.
//!
//! The database is written first. A crash between the two leaves files of an earlier start, which
//! are accepted: only files of a later start show that the database is an older copy.

use std::{
    io,
    path::{Path, PathBuf},
};

use fs_err as fs;
use sqlx::{SqliteConnection, sqlite::SqlitePool};

use crate::files::{self, UPLOADED_MARKER};

use super::Error;

/// Name of the file in each directory.
const FILE: &str = ".store";
const DIRECTORIES: [&str; 2] = ["artifacts", "datasets"];
/// The first schema with an identity.
pub(super) const FIRST_SCHEMA: i64 = 5;

/// The id of a data directory, and the number of its starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub id: String,
    pub generation: i64,
}

impl Identity {
    /// Reads the identity of a database of [`FIRST_SCHEMA`] or later.
    pub(super) async fn read(connection: &mut SqliteConnection) -> Result<Self, sqlx::Error> {
        let (id, generation) = sqlx::query_as("SELECT id, generation FROM store_identity")
            .fetch_one(connection)
            .await?;
        Ok(Self { id, generation })
    }

    /// Counts a start.
    pub(super) async fn advance(writer: &SqlitePool) -> Result<Self, Error> {
        let (id, generation) = sqlx::query_as(
            "UPDATE store_identity SET generation = generation + 1 RETURNING id, generation",
        )
        .fetch_one(writer)
        .await?;
        Ok(Self { id, generation })
    }

    /// Writes the identity beside the artifacts and the datasets, whose directories exist.
    pub(super) fn write(&self, data_dir: &Path) -> io::Result<()> {
        for directory in directories(data_dir) {
            let text = format!("{} {}\n", self.id, self.generation);
            files::write_atomic(&directory.join(FILE), text.as_bytes())?;
        }
        Ok(())
    }
}

/// Compares the identity of a database, `None` for an older schema, with that of the files.
///
/// # Errors
/// [`Error::ForeignFiles`], [`Error::Directory`].
pub(super) fn check(
    data_dir: &Path,
    database: &Path,
    found: Option<&Identity>,
) -> Result<(), Error> {
    for directory in directories(data_dir) {
        let Some(of_files) =
            read_file(&directory).map_err(|source| Error::directory(&directory, source))?
        else {
            continue;
        };
        let problem = match found {
            Some(found) if found.id != of_files.id => "they belong to another database".to_owned(),
            Some(found) if found.generation < of_files.generation => format!(
                "it is an older copy (start {}, the files are of start {})",
                found.generation, of_files.generation
            ),
            Some(_) => continue,
            None => "it is an older copy, from before the last upgrade".to_owned(),
        };
        return Err(Error::ForeignFiles {
            path: database.to_owned(),
            data_dir: data_dir.to_owned(),
            directory,
            problem,
        });
    }
    Ok(())
}

fn directories(data_dir: &Path) -> Vec<PathBuf> {
    // A directory of datasets without the marker was filled by others.
    let is_own = |directory: &PathBuf| match directory.ends_with("datasets") {
        true => directory.join(UPLOADED_MARKER).is_file(),
        false => directory.is_dir(),
    };
    let all = DIRECTORIES.iter().map(|name| data_dir.join(name));
    all.filter(is_own).collect()
}

/// `None` without a file, or with one that is not ours.
fn read_file(directory: &Path) -> io::Result<Option<Identity>> {
    let text = match fs::read(directory.join(FILE)) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let parsed = text.trim_end().split_once(' ');
    Ok(parsed.and_then(|(id, generation)| {
        Some(Identity {
            id: id.to_owned(),
            generation: generation.parse().ok()?,
        })
    }))
}
