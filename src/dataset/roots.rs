//! Directories from which datasets are accepted. A client that may start a training must not be
//! able to read any file of the server.

use std::{
    io,
    path::{Component, Path, PathBuf},
};

use fs_err as fs;

use super::Error;
use crate::files::UPLOADED_MARKER;

/// Directories under which datasets or weights are accepted, with all links resolved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Roots {
    directories: Vec<PathBuf>,
    /// Setting of the server, for errors.
    setting: &'static str,
}

impl Roots {
    /// Resolves the configured dataset directories.
    ///
    /// # Errors
    /// [`Error::Root`] for a path that does not exist or is not a directory.
    pub(crate) fn new(directories: impl IntoIterator<Item = PathBuf>) -> Result<Self, Error> {
        Roots::of("data_roots", directories)
    }

    /// Resolves the configured weights directories.
    ///
    /// # Errors
    /// As [`Roots::new`].
    pub(crate) fn of_weights(
        directories: impl IntoIterator<Item = PathBuf>,
    ) -> Result<Self, Error> {
        Roots::of("weights_roots", directories)
    }

    fn of(
        setting: &'static str,
        directories: impl IntoIterator<Item = PathBuf>,
    ) -> Result<Self, Error> {
        let mut roots = Vec::new();
        for path in directories {
            let resolved = fs::canonicalize(&path).and_then(|resolved| {
                if fs::metadata(&resolved)?.is_dir() {
                    return Ok(resolved);
                }
                Err(io::Error::new(
                    io::ErrorKind::NotADirectory,
                    "it is not a directory",
                ))
            });
            match resolved {
                Ok(resolved) => roots.push(resolved),
                Err(source) => return Err(Error::Root { path, source }),
            }
        }
        Ok(Roots {
            directories: roots,
            setting,
        })
    }

    /// Returns the real path of a user's path, which exists and is a root or under one.
    ///
    /// A relative path is searched under each root in order. The error does not reveal which files
    /// exist outside the roots.
    ///
    /// # Errors
    /// [`Error::NoRoots`], [`Error::OutsideRoots`], [`Error::NotFound`], and [`Error::Io`] for a
    /// path under a root that the system refuses to resolve.
    pub(crate) fn resolve(&self, user_path: &str) -> Result<PathBuf, Error> {
        if self.directories.is_empty() {
            return Err(Error::NoRoots);
        }
        let mut exists_outside = false;
        for root in &self.directories {
            // Joining an absolute path returns that path.
            let candidate = root.join(user_path);
            match fs::canonicalize(&candidate) {
                Ok(resolved) if self.contains(&resolved) => return Ok(resolved),
                Ok(_) => exists_outside = true,
                Err(error) if is_absent(&error) => {
                    exists_outside |= !self.holds_nearest_directory(&candidate);
                }
                Err(error) => {
                    if self.holds_nearest_directory(&candidate) {
                        return Err(error.into());
                    }
                    exists_outside = true;
                }
            }
        }
        let (path, roots, setting) = (user_path.to_owned(), self.listed(), self.setting);
        if exists_outside {
            return Err(Error::OutsideRoots {
                path,
                roots,
                setting,
            });
        }
        Err(Error::NotFound {
            path,
            roots,
            setting,
        })
    }

    /// Returns the roots for the files that the dataset at a resolved path names: for an uploaded
    /// dataset its own directory alone.
    pub(super) fn within(&self, dataset: &Path) -> Self {
        let own = self.directories.iter().find_map(|root| {
            let inner = dataset.strip_prefix(root).ok()?.components().next()?;
            let is_uploaded = root.join(UPLOADED_MARKER).is_file();
            is_uploaded.then(|| root.join(inner))
        });
        match own {
            Some(directory) => Roots {
                directories: vec![directory],
                setting: self.setting,
            },
            None => self.clone(),
        }
    }

    /// Returns true for a resolved path that is a root or under one.
    #[must_use]
    pub(crate) fn contains(&self, resolved: &Path) -> bool {
        self.directories
            .iter()
            .any(|root| resolved.starts_with(root))
    }

    /// Returns true if the deepest existing directory of the path is under a root.
    fn holds_nearest_directory(&self, path: &Path) -> bool {
        // A `..` behind a missing directory could lead anywhere, and is never needed.
        let climbs = path
            .components()
            .any(|component| component == Component::ParentDir);
        if climbs {
            return false;
        }
        path.ancestors()
            .skip(1)
            .find_map(|ancestor| fs::canonicalize(ancestor).ok())
            .is_some_and(|resolved| self.contains(&resolved))
    }

    fn listed(&self) -> String {
        let roots: Vec<String> = self
            .directories
            .iter()
            .map(|root| root.display().to_string())
            .collect();
        roots.join(", ")
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}
