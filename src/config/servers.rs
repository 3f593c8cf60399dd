//! Servers with names, in `servers.toml` of the user's configuration directory.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{Environment, Error, client::parse_server};

/// A server with the files of its credentials.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ServerEntry {
    /// As for `--server`.
    pub address: String,
    pub ca: Option<PathBuf>,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub token_file: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    /// The server of commands that name none.
    current: Option<String>,
    #[serde(default)]
    servers: BTreeMap<String, ServerEntry>,
}

/// The file, which need not exist.
#[derive(Debug, Default)]
pub(crate) struct ServersFile {
    path: Option<PathBuf>,
    contents: Contents,
}

impl ServersFile {
    /// Reads the file; relative paths in it start at its directory.
    ///
    /// # Errors
    /// A file that cannot be read or is not valid, and a current server without an entry.
    pub(crate) fn read(environment: &Environment) -> Result<Self, Error> {
        match path(environment) {
            Some(path) => Self::at(path),
            None => Ok(Self::default()),
        }
    }

    /// Reads the file at a path.
    ///
    /// # Errors
    /// As for [`ServersFile::read`].
    pub(crate) fn at(path: PathBuf) -> Result<Self, Error> {
        let text = match fs_err::read_to_string(&path) {
            Ok(text) => text,
            // A service may not see the home directories.
            Err(error) if is_unavailable(&error) => String::new(),
            Err(error) => return Err(Error::Read(error)),
        };
        Self::parse(&path, &text)
    }

    /// Checks the text of a file at `path`.
    ///
    /// # Errors
    /// A text that is not valid, and a current server without an entry.
    pub(crate) fn parse(path: &Path, text: &str) -> Result<Self, Error> {
        let path = path.to_owned();
        let mut contents: Contents = toml::from_str(text).map_err(|cause| Error::Syntax {
            path: path.clone(),
            cause: Box::new(cause),
        })?;
        let directory = path.parent().unwrap_or(Path::new("."));
        for (name, entry) in &mut contents.servers {
            if !is_name(name) || parse_server(&entry.address).is_none() {
                return Err(Error::Server {
                    path,
                    name: name.clone(),
                    address: entry.address.clone(),
                });
            }
            let files = [
                &mut entry.ca,
                &mut entry.cert,
                &mut entry.key,
                &mut entry.token_file,
            ];
            for file in files.into_iter().flatten() {
                *file = directory.join(&*file);
            }
        }
        if let Some(current) = &contents.current
            && !contents.servers.contains_key(current)
        {
            return Err(Error::CurrentServer {
                path,
                name: current.clone(),
            });
        }
        Ok(Self {
            path: Some(path),
            contents,
        })
    }

    /// `None` if the user has no home directory.
    pub(crate) fn path(&self) -> Option<&PathBuf> {
        self.path.as_ref()
    }

    pub(crate) fn current(&self) -> Option<&str> {
        self.contents.current.as_deref()
    }

    pub(crate) fn get(&self, name: &str) -> Option<&ServerEntry> {
        self.contents.servers.get(name)
    }

    pub(crate) fn servers(&self) -> impl Iterator<Item = (&str, &ServerEntry)> {
        let servers = self.contents.servers.iter();
        servers.map(|(name, entry)| (name.as_str(), entry))
    }
}

/// Returns whether the text may be the name of a server; it differs from every address.
pub(crate) fn is_name(text: &str) -> bool {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !text.is_empty() && text.len() <= 63 && text.chars().all(is_allowed)
}

fn path(environment: &Environment) -> Option<PathBuf> {
    let configured = environment.get("XDG_CONFIG_HOME").map(PathBuf::from);
    let configuration = match configured.filter(|path| path.is_absolute()) {
        Some(directory) => directory,
        None => Path::new(environment.get("HOME")?).join(".config"),
    };
    Some(configuration.join("visage").join("servers.toml"))
}

fn is_unavailable(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::PermissionDenied
    )
}
