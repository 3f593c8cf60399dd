//! `backup.json` and `files.jsonl`.

use std::{
    io::{self, BufRead, BufReader, BufWriter, Write as _},
    path::{Component, Path, PathBuf},
};

use fs_err as fs;
use serde::{Deserialize, Serialize};

use crate::{artifacts::hash_file, files};

use super::{Damage, Error};

pub(super) const DATABASE: &str = "visage.db";
pub(super) const FILES: &str = "files.jsonl";
const SUMMARY: &str = "backup.json";
/// Format of the directory of backups.
const FORMAT: u32 = 1;
/// Directory of all backups.
const BACKUPS: &str = "backups";
/// Prefix of unfinished backups.
pub(super) const PARTIAL: &str = ".partial-";

/// `backup.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Summary {
    pub format: u32,
    /// Time of the copy of the database.
    pub time: String,
    /// Version of the program that made the backup.
    pub program: String,
    /// Schema of the database.
    pub schema: i64,
    /// Identity of the data directory; absent before schema 5.
    pub store_id: Option<String>,
    pub generation: Option<i64>,
    pub database: Entry,
    /// `files.jsonl`.
    pub files: Entry,
    pub file_count: u64,
    /// Sizes of all files but the database.
    pub file_bytes: u64,
    /// Files that were missing or damaged in the data directory.
    pub damaged: Vec<Damage>,
    /// Trainings whose full checkpoint was replaced while it was copied; they start again after a
    /// restore.
    pub restarting: Vec<String>,
}

/// A file, by its path in the data directory or in the backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub path: String,
    pub sha256: String,
    pub bytes: u64,
    /// Change of a dataset's file in nanoseconds since the Unix epoch, so that the next backup
    /// knows without reading it that it did not change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modified: Option<i64>,
    /// Owners of the file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub of: Vec<String>,
}

impl Entry {
    /// The entry of a file in a backup.
    pub(super) fn of_file(directory: &Path, name: &str) -> io::Result<Self> {
        let digest = hash_file(&directory.join(name))?;
        Ok(Self {
            path: name.to_owned(),
            sha256: digest.sha256,
            bytes: digest.size,
            modified: None,
            of: Vec::new(),
        })
    }

    /// The path below a directory; `None` if it leads out of it.
    pub(super) fn below(&self, directory: &Path) -> Option<PathBuf> {
        let path = Path::new(&self.path);
        let is_inside = path
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        (is_inside && !self.path.is_empty()).then(|| directory.join(path))
    }
}

impl Summary {
    pub(super) const FORMAT: u32 = FORMAT;

    pub(super) fn write(&self, directory: &Path) -> io::Result<()> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        files::write_atomic(&directory.join(SUMMARY), &text)
    }

    pub(super) fn read(directory: &Path) -> Result<Self, Error> {
        /// The part that all formats have.
        #[derive(Deserialize)]
        struct Versioned {
            format: u32,
        }
        let path = directory.join(SUMMARY);
        let text = fs::read(&path)?;
        let bad = |error: serde_json::Error| Error::BadManifest {
            path: path.clone(),
            problem: error.to_string(),
        };
        let Versioned { format } = serde_json::from_slice(&text).map_err(bad)?;
        if format > FORMAT {
            return Err(Error::NewerFormat { path, format });
        }
        serde_json::from_slice(&text).map_err(bad)
    }
}

/// Writes `files.jsonl`.
pub(super) struct FilesWriter {
    out: BufWriter<fs::File>,
    pub count: u64,
    pub bytes: u64,
}

impl FilesWriter {
    pub(super) fn create(directory: &Path) -> io::Result<Self> {
        Ok(Self {
            out: BufWriter::new(fs::File::create(directory.join(FILES))?),
            count: 0,
            bytes: 0,
        })
    }

    pub(super) fn write(&mut self, entry: &Entry) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, entry)?;
        self.out.write_all(b"\n")?;
        self.count += 1;
        self.bytes += entry.bytes;
        Ok(())
    }

    pub(super) fn finish(mut self) -> io::Result<()> {
        self.out.flush()?;
        self.out.get_ref().sync_all()
    }
}

/// Reads `files.jsonl` line by line.
pub(super) fn read_files(
    directory: &Path,
) -> Result<impl Iterator<Item = Result<Entry, Error>> + use<>, Error> {
    let path = directory.join(FILES);
    let lines = BufReader::new(fs::File::open(&path)?).lines();
    Ok(lines.map(move |line| {
        serde_json::from_str(&line?).map_err(|error| Error::BadManifest {
            path: path.clone(),
            problem: error.to_string(),
        })
    }))
}

pub(super) fn backups(root: &Path) -> PathBuf {
    root.join(BACKUPS)
}

/// Returns the names of the complete backups, oldest first.
pub(super) fn names(root: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(backups(root))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') && entry.path().join(SUMMARY).is_file() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}
