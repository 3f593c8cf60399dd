//! Copies the files of a data directory into the content of a directory of backups.

use std::{
    collections::{BTreeSet, HashMap},
    io,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use fs_err as fs;

use crate::{
    artifacts::file_in,
    files::UPLOADED_MARKER,
    proto::v1::{DatasetKind, DatasetState},
    store::{NumberedDataset, Reference, References},
};

use super::{
    Damage, Progress,
    content::{Added, Content},
    manifest::{Entry, FilesWriter},
};

/// Files outside `artifacts`, `datasets`, `uploads` and `work` that belong to a server.
const SINGLE_FILES: [&str; 1] = ["tokens.toml"];

/// Entries of datasets in the last backup, by path.
pub(super) type Earlier = HashMap<String, Entry>;

/// One pass over the files that a copy of the database names.
pub(super) struct Collector<'a> {
    pub data_dir: &'a Path,
    pub content: &'a mut Content,
    pub earlier: &'a Earlier,
    pub files: FilesWriter,
    pub progress: Progress<'a>,
    /// Files that are missing, with what they belong to.
    pub missing: Vec<Damage>,
    pub damaged: Vec<Damage>,
    pub restarting: Vec<String>,
}

impl Collector<'_> {
    /// Copies all files. What changes soonest comes first.
    pub(super) fn run(&mut self, named: &References) -> io::Result<()> {
        self.full_checkpoints(named)?;
        self.artifacts(&named.artifacts)?;
        for found in &named.datasets {
            self.dataset(found)?;
        }
        // Initial weights that the operator added, for trainings that are queued.
        self.tree(Path::new("weights"), &[])?;
        for name in SINGLE_FILES {
            self.optional(Path::new(name), &[])?;
        }
        self.content.flush()
    }

    /// Full checkpoints of live trainings, which the next one replaces.
    fn full_checkpoints(&mut self, named: &References) -> io::Result<()> {
        for (id, point) in &named.resume_points {
            let path = Path::new("work").join(id).join(&point.file);
            let owner = format!("trainings/{id}");
            if !self.optional(&path, std::slice::from_ref(&owner))? {
                self.restarting.push(owner);
            }
        }
        Ok(())
    }

    fn artifacts(&mut self, references: &[Reference]) -> io::Result<()> {
        let directory = self.data_dir.join("artifacts");
        for same in references.chunk_by(|a, b| a.sha256 == b.sha256) {
            let sha256 = &same[0].sha256;
            let of: Vec<String> = same.iter().map(|found| found.owner.clone()).collect();
            let Some(source) = file_in(&directory, sha256) else {
                self.damaged.push(Damage {
                    path: sha256.clone(),
                    problem: "is not a digest".to_owned(),
                    of,
                });
                continue;
            };
            let added = self.content.add_known(&source, sha256)?;
            self.record(&source, added, None, of)?;
        }
        Ok(())
    }

    fn dataset(&mut self, found: &NumberedDataset) -> io::Result<()> {
        let dataset = &found.dataset;
        let of = [dataset.name.clone()];
        let samples = format!("datasets/.samples/{}", found.number);
        self.tree(Path::new(&samples), &of)?;
        if dataset.kind() != DatasetKind::Uploaded {
            return Ok(());
        }
        self.optional(&Path::new("datasets").join(UPLOADED_MARKER), &[])?;
        if matches!(
            dataset.state(),
            DatasetState::Unpacking | DatasetState::Scanning
        ) {
            for end in ["data", "json"] {
                self.optional(Path::new(&format!("uploads/{}.{end}", dataset.upload)), &of)?;
            }
        }
        let Some(name) = Path::new(&dataset.path).file_name() else {
            return Ok(());
        };
        let directory = Path::new("datasets").join(name);
        let exists = self.tree(&directory, &of)?;
        if !exists && dataset.state() == DatasetState::Ready {
            self.missing.push(Damage {
                path: directory.to_string_lossy().into_owned(),
                problem: "does not exist".to_owned(),
                of: of.into(),
            });
        }
        Ok(())
    }

    /// Adds all files below a directory; returns false if it does not exist.
    fn tree(&mut self, directory: &Path, of: &[String]) -> io::Result<bool> {
        let entries = match fs::read_dir(self.data_dir.join(directory)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        let mut directories = Vec::new();
        for entry in entries {
            let entry = entry?;
            let path = directory.join(entry.file_name());
            let kind = entry.file_type()?;
            if kind.is_dir() {
                directories.push(path);
            } else if kind.is_file() {
                self.file_of_dataset(&path, of)?;
            }
        }
        for directory in directories {
            self.tree(&directory, of)?;
        }
        Ok(true)
    }

    fn file_of_dataset(&mut self, path: &Path, of: &[String]) -> io::Result<()> {
        let source = self.data_dir.join(path);
        let known = path.to_str().and_then(|path| self.earlier.get(path));
        let modified = modified(&source);
        if let Some(known) = known
            && known.modified.is_some()
            && known.modified == modified
            && fs::metadata(&source).is_ok_and(|found| found.len() == known.bytes)
            && self.content.has(&known.sha256, known.bytes)
        {
            self.advance(known.bytes);
            return self.files.write(known);
        }
        let added = self.content.add_unknown(&source)?;
        self.record(&source, added, modified, of.to_vec())
    }

    /// Adds a file that may be missing; returns whether it existed.
    fn optional(&mut self, path: &Path, of: &[String]) -> io::Result<bool> {
        let source = self.data_dir.join(path);
        match self.content.add_unknown(&source)? {
            Added::Missing => Ok(false),
            added @ (Added::Stored(_) | Added::Damaged) => {
                self.record(&source, added, None, of.to_vec())?;
                Ok(true)
            }
        }
    }

    fn record(
        &mut self,
        source: &Path,
        added: Added,
        modified: Option<i64>,
        of: Vec<String>,
    ) -> io::Result<()> {
        let relative = source.strip_prefix(self.data_dir).unwrap_or(source);
        let damage = |problem: &str, of| Damage {
            path: relative.to_string_lossy().into_owned(),
            problem: problem.to_owned(),
            of,
        };
        let digest = match added {
            Added::Missing => {
                self.missing.push(damage("does not exist", of));
                return Ok(());
            }
            Added::Damaged => {
                self.damaged
                    .push(damage("has other bytes than its name says", of));
                return Ok(());
            }
            Added::Stored(digest) => digest,
        };
        let Some(path) = relative.to_str() else {
            self.damaged
                .push(damage("has a name that is not valid UTF-8", of));
            return Ok(());
        };
        self.advance(digest.size);
        self.files.write(&Entry {
            path: path.to_owned(),
            sha256: digest.sha256,
            bytes: digest.size,
            modified,
            of,
        })
    }

    fn advance(&mut self, bytes: u64) {
        (self.progress)(self.files.bytes + bytes, None);
    }

    /// Paths of the missing files.
    pub(super) fn missing_paths(&self) -> BTreeSet<PathBuf> {
        self.missing
            .iter()
            .map(|damage| PathBuf::from(&damage.path))
            .collect()
    }
}

fn modified(path: &Path) -> Option<i64> {
    let time = fs::metadata(path).ok()?.modified().ok()?;
    i64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_nanos()).ok()
}
