//! Checks of entry names, and the only place that writes files.

use std::{
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use fs_err as fs;

use crate::dataset::{FileKind, HEAD_BYTES, file_kind, is_image_content};

use super::{
    Error, Limits, Unpacked,
    error::{Stop, shorten, stopped},
};

/// Most directories in a name.
const MAX_DEPTH: usize = 32;
/// Most bytes of a component of a name; file systems allow no more.
const MAX_PART: usize = 255;
/// Most bytes of a name.
const MAX_NAME: usize = 2_048;
/// Extensions of archives, which are not unpacked inside another one.
const ARCHIVES: [&str; 8] = ["zip", "tar", "tgz", "gz", "bz2", "xz", "7z", "rar"];
/// Bytes of a copy.
const CHUNK: usize = 64 << 10;

/// The directory that receives the files.
pub(super) struct Target<'a> {
    directory: &'a Path,
    limits: &'a Limits,
    /// Most unpacked bytes of an archive of this size.
    by_ratio: u64,
    entries: u64,
    found: Unpacked,
    images: u64,
    buffer: Vec<u8>,
    /// Name of the current entry.
    current: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
    /// Such as `a symbolic link`.
    Other(&'static str),
}

/// Destination of an entry.
pub(super) enum Place {
    File(PathBuf),
    /// A file if its content is an image, with the name for a report.
    Unknown(PathBuf, String),
    /// A directory, or a file that does not belong to a dataset.
    Nowhere,
}

impl<'a> Target<'a> {
    pub(super) fn new(directory: &'a Path, limits: &'a Limits, by_ratio: u64) -> Self {
        Target {
            directory,
            limits,
            by_ratio,
            entries: 0,
            found: Unpacked::default(),
            images: 0,
            buffer: vec![0; CHUNK],
            current: String::new(),
        }
    }

    /// Counts an entry and checks its name and kind. `separators` separate the components of a
    /// name.
    pub(super) fn accept(
        &mut self,
        name: &str,
        separators: &[char],
        kind: Kind,
    ) -> Result<Place, Error> {
        self.count(name)?;
        let parts = self.parts(name, separators)?;
        if let Kind::Other(what) = kind {
            return Err(self.refuse(format!("it must be a file or a directory, got {what}")));
        }
        let is_hidden = parts
            .iter()
            .any(|part| part.starts_with('.') || *part == "__MACOSX");
        if kind == Kind::Directory {
            return Ok(Place::Nowhere);
        }
        let Some(last) = parts.last() else {
            return Err(self.refuse("it is a file without a name".to_owned()));
        };
        let joined = parts.join("/");
        let path = self.directory.join(&joined);
        let kind = match is_hidden {
            true => FileKind::Other,
            false => file_kind(last),
        };
        match kind {
            FileKind::Image => {
                self.images += 1;
                Ok(Place::File(path))
            }
            FileKind::Unknown => Ok(Place::Unknown(path, joined)),
            FileKind::Other if !is_hidden && has_extension(last, &["csv", "tsv"]) => {
                Ok(Place::File(path))
            }
            FileKind::Other => {
                if !is_hidden && has_extension(last, &ARCHIVES) {
                    self.found.skipped.archive(joined);
                }
                self.found.ignored += 1;
                Ok(Place::Nowhere)
            }
        }
    }

    /// Counts an entry that is not a file or directory itself, such as a long name.
    pub(super) fn count(&mut self, name: &str) -> Result<(), Error> {
        self.current = shorten(name);
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(Error::TooManyEntries {
                entry: self.current.clone(),
                limit: self.limits.entries,
            });
        }
        Ok(())
    }

    /// Returns the components of a name that stays inside the directory.
    fn parts<'n>(&self, name: &'n str, separators: &[char]) -> Result<Vec<&'n str>, Error> {
        let refuse = |problem: &str| Err(self.refuse(problem.to_owned()));
        if name.len() > MAX_NAME {
            return refuse("its name is longer than 2048 bytes");
        }
        if name.starts_with(separators) {
            return refuse("its name is an absolute path");
        }
        if name.contains('\\') && !separators.contains(&'\\') {
            return refuse("its name has a backslash");
        }
        let mut parts = Vec::new();
        for part in name
            .split(separators)
            .filter(|part| !matches!(*part, "" | "."))
        {
            if part == ".." {
                return refuse("its name leads out of the archive with `..`");
            }
            if parts.is_empty() && is_drive(part) {
                return refuse("its name is an absolute path");
            }
            if part.len() > MAX_PART {
                return refuse("a part of its name is longer than 255 bytes");
            }
            parts.push(part);
        }
        // The icon of a directory on macOS has such a name; it is never written.
        let is_icon = matches!(parts.last(), Some(&"Icon\r" | &"._Icon\r"));
        let inspected = &parts[..parts.len() - usize::from(is_icon)];
        if inspected
            .iter()
            .any(|part| part.chars().any(char::is_control))
        {
            return refuse("its name has a control character");
        }
        if parts.len() > MAX_DEPTH {
            return refuse("its name has more than 32 directories");
        }
        Ok(parts)
    }

    /// Writes an entry if it is an image. Its size must be `expected`.
    pub(super) fn write_image(
        &mut self,
        path: &Path,
        name: String,
        mut bytes: impl Read,
        expected: u64,
    ) -> Result<(), Error> {
        let mut head = Vec::new();
        let read = (&mut bytes).take(HEAD_BYTES).read_to_end(&mut head);
        read.map_err(|error| self.unreadable(error))?;
        if !is_image_content(&head) {
            self.found.skipped.not_an_image(name);
            self.found.ignored += 1;
            return Ok(());
        }
        self.images += 1;
        self.write(path, head.as_slice().chain(bytes), expected)
    }

    /// Writes an entry. Its size must be `expected`.
    pub(super) fn write(
        &mut self,
        path: &Path,
        mut bytes: impl Read,
        expected: u64,
    ) -> Result<(), Error> {
        if let Some(parent) = path.parent() {
            // Fails if a file of an earlier entry has the name of the directory.
            fs::create_dir_all(parent).map_err(|error| self.unwritable(error))?;
        }
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(path)
            .map_err(|error| self.unwritable(error))?;
        let mut written = 0;
        loop {
            let read = match bytes.read(&mut self.buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.unreadable(error)),
            };
            written += read as u64;
            self.found.bytes += read as u64;
            self.check_bytes()?;
            file.write_all(&self.buffer[..read])?;
        }
        if written != expected {
            return Err(self.damaged(format!("it must have {expected} bytes, got {written}")));
        }
        self.found.files += 1;
        Ok(())
    }

    fn check_bytes(&self) -> Result<(), Error> {
        if self.found.bytes > self.limits.bytes {
            return Err(self.too_large());
        }
        if self.found.bytes > self.by_ratio {
            return Err(Error::Bomb {
                entry: self.current.clone(),
                limit: self.by_ratio,
            });
        }
        Ok(())
    }

    fn too_large(&self) -> Error {
        Error::TooLarge {
            entry: self.current.clone(),
            limit: self.limits.bytes,
        }
    }

    /// Returns the error for the current entry.
    pub(super) fn refuse(&self, problem: String) -> Error {
        Error::Refused {
            entry: self.current.clone(),
            problem,
        }
    }

    /// Returns the error for an archive that is damaged at the current entry.
    pub(super) fn damaged(&self, problem: String) -> Error {
        Error::Damaged {
            entry: self.current.clone(),
            problem,
        }
    }

    /// Converts a failure to read the archive.
    pub(super) fn unreadable(&self, error: io::Error) -> Error {
        match stopped(&error) {
            Some(Stop::Cancelled) => Error::Cancelled,
            Some(Stop::TooLarge) if self.by_ratio < self.limits.bytes => Error::Bomb {
                entry: self.current.clone(),
                limit: self.by_ratio,
            },
            Some(Stop::TooLarge) => self.too_large(),
            None => self.damaged(error.to_string()),
        }
    }

    /// Converts a failure to create a file or a directory.
    fn unwritable(&self, error: io::Error) -> Error {
        let is_taken = matches!(
            error.kind(),
            io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory
        );
        match is_taken {
            true => self.refuse("an earlier entry has this name".to_owned()),
            false => error.into(),
        }
    }

    /// Checks that the archive contained images.
    pub(super) fn finish(self) -> Result<Unpacked, Error> {
        match self.images {
            0 => Err(Error::NoImages {
                ignored: self.found.ignored,
                skipped: self.found.skipped.warnings(),
            }),
            _ => Ok(self.found),
        }
    }
}

/// Returns true for `C:` with any suffix.
fn is_drive(part: &str) -> bool {
    let bytes = part.as_bytes();
    bytes.get(1) == Some(&b':') && bytes[0].is_ascii_alphabetic()
}

fn has_extension(name: &str, extensions: &[&str]) -> bool {
    name.rsplit_once('.').is_some_and(|(_, end)| {
        extensions
            .iter()
            .any(|extension| end.eq_ignore_ascii_case(extension))
    })
}
