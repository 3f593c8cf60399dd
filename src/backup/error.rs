//! Errors of backups, and damage that they find.

use std::{fmt, io, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::store;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The source names the file.
    #[error("{0}")]
    File(#[from] io::Error),
    #[error("--to must be outside the data directory {}, got {}", data_dir.display(), to.display())]
    Inside { data_dir: PathBuf, to: PathBuf },
    #[error("another backup is running in {}; wait for its end", .0.display())]
    Busy(PathBuf),
    #[error("{} has neither backups nor a database; name the directory given to `visage backup --to`, or a data directory", .0.display())]
    NothingHere(PathBuf),
    #[error("{} has no backup {name}; its backups are {}", directory.display(), known.join(", "))]
    NoBackup {
        directory: PathBuf,
        name: String,
        known: Vec<String>,
    },
    #[error("{} was written by a newer version of visage (format {format}); use that version", path.display())]
    NewerFormat { path: PathBuf, format: u32 },
    #[error("{} is not valid: {problem}; use another backup", path.display())]
    BadManifest { path: PathBuf, problem: String },
    #[error("{} must be empty or missing; name another directory", .0.display())]
    NotEmpty(PathBuf),
    #[error(
        "{count} files of the backup are damaged, so {} was not completed; restore another backup, or pass --ignore-damage",
        directory.display()
    )]
    Damaged { directory: PathBuf, count: usize },
}

/// A file that is missing or damaged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Damage {
    pub path: String,
    pub problem: String,
    /// Owners of the file, such as `models/age/versions/3`.
    pub of: Vec<String>,
}

impl fmt::Display for Damage {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}", self.path, self.problem)?;
        match self.of.is_empty() {
            true => Ok(()),
            false => write!(out, "; it belongs to {}", self.of.join(", ")),
        }
    }
}
