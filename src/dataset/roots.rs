//! Directories from which datasets are accepted. A client that may start a training must not be
//! able to read any file of the server.

use std::{
    io,
    path::{Component, Path, PathBuf},
    time::Duration,
};

use fs_err as fs;
use tokio::sync::Semaphore;

use super::Error;
use crate::files::UPLOADED_MARKER;

/// Resolutions at once; further ones wait.
const MAX_RESOLVING: usize = 16;
/// Longest wait for a file system.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(10);

static RESOLVING: Semaphore = Semaphore::const_new(MAX_RESOLVING);

/// Directories under which datasets or weights are accepted, with all links resolved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Roots {
    directories: Vec<PathBuf>,
    /// Directory with files of the server, which is accepted as well.
    own: Vec<PathBuf>,
    /// The server's data directory: a path in it must be under a root in it.
    data_dir: Option<PathBuf>,
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
        let directories = directories.into_iter().map(resolved_directory);
        Ok(Roots {
            directories: directories.collect::<Result<_, _>>()?,
            own: Vec::new(),
            data_dir: None,
            setting,
        })
    }

    /// Also accepts a directory with files of the server, in addition to the roots.
    ///
    /// # Errors
    /// As [`Roots::new`].
    pub(crate) fn with_own(mut self, directory: PathBuf) -> Result<Self, Error> {
        self.own.push(resolved_directory(directory)?);
        Ok(self)
    }

    /// Refuses the files of the server in its data directory, such as the database, except under
    /// roots in it.
    ///
    /// # Errors
    /// As [`Roots::new`].
    pub(crate) fn except_data_dir(mut self, data_dir: PathBuf) -> Result<Self, Error> {
        self.data_dir = Some(resolved_directory(data_dir)?);
        Ok(self)
    }

    /// As [`Roots::resolve`], on another thread and with a time limit, because a network file
    /// system may not respond.
    ///
    /// # Errors
    /// [`Error::NoResponse`] and those of [`Roots::resolve`].
    pub(crate) async fn resolve_async(&self, user_path: &str) -> Result<PathBuf, Error> {
        let (roots, path) = (self.clone(), user_path.to_owned());
        let resolving = async move {
            let permit = RESOLVING.acquire().await;
            #[expect(
                clippy::disallowed_methods,
                reason = "the blocking pool is for file operations, and few run at once"
            )]
            let resolved = tokio::task::spawn_blocking(move || {
                // Held until the file system responds.
                let _permit = permit;
                roots.resolve(&path)
            });
            resolved.await.unwrap_or_else(|panic| {
                let panicked = io::Error::other(panic);
                Err(panicked.into())
            })
        };
        let resolved = tokio::time::timeout(RESOLVE_TIMEOUT, resolving).await;
        resolved.unwrap_or_else(|_| {
            Err(Error::NoResponse {
                path: user_path.to_owned(),
                seconds: RESOLVE_TIMEOUT.as_secs(),
            })
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
        let mut exists_outside = false;
        for root in self.all() {
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
        if self.directories.is_empty() {
            return Err(Error::NoRoots { setting });
        }
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
        let own = self.all().find_map(|root| {
            let inner = dataset.strip_prefix(root).ok()?.components().next()?;
            let is_uploaded = root.join(UPLOADED_MARKER).is_file();
            is_uploaded.then(|| root.join(inner))
        });
        match own {
            Some(directory) => Roots {
                directories: vec![directory],
                own: Vec::new(),
                data_dir: None,
                setting: self.setting,
            },
            None => self.clone(),
        }
    }

    /// Returns true for a resolved path that is a root or under one.
    #[must_use]
    pub(crate) fn contains(&self, resolved: &Path) -> bool {
        let data_dir = self.data_dir.as_deref();
        let data_dir = data_dir.filter(|data_dir| resolved.starts_with(data_dir));
        self.all().any(|root| {
            let is_allowed = match data_dir {
                Some(data_dir) => root != data_dir && root.starts_with(data_dir),
                None => true,
            };
            is_allowed && resolved.starts_with(root)
        })
    }

    /// Returns true for the resolved data directory, which may lie under a root.
    pub(super) fn is_data_dir(&self, resolved: &Path) -> bool {
        self.data_dir.as_deref() == Some(resolved)
    }

    fn all(&self) -> impl Iterator<Item = &PathBuf> {
        self.directories.iter().chain(&self.own)
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
        for ancestor in path.ancestors() {
            match fs::canonicalize(ancestor) {
                Ok(resolved) => return self.contains(&resolved),
                // A link whose target is missing or hidden: it may lead out of the roots.
                Err(_) if fs::symlink_metadata(ancestor).is_ok_and(|found| found.is_symlink()) => {
                    return false;
                }
                Err(_) => {}
            }
        }
        false
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

fn resolved_directory(path: PathBuf) -> Result<PathBuf, Error> {
    let resolved = fs::canonicalize(&path).and_then(|resolved| {
        if fs::metadata(&resolved)?.is_dir() {
            return Ok(resolved);
        }
        Err(io::Error::new(
            io::ErrorKind::NotADirectory,
            "it is not a directory",
        ))
    });
    resolved.map_err(|source| Error::Root { path, source })
}

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}
