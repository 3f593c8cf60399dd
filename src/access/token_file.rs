//! Reads the token file.

use std::{
    io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use toml_edit::DocumentMut;

use super::credentials::{Credentials, Mistake, line_of};

/// A file of millions of tokens would be a mistake.
const MAX_BYTES: u64 = 16 << 20;

#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenFileError {
    #[error("failed to access the token file {path}: {cause}", path = path.display())]
    Io { path: PathBuf, cause: io::Error },
    #[error(
        "the token file {path} is accessible by other users (mode {mode:o}); run `chmod 600 {path}`", path = path.display()
    )]
    Exposed { path: PathBuf, mode: u32 },
    #[error("the token file {path} must belong to the user of the server or to root", path = path.display())]
    ForeignOwner { path: PathBuf },
    #[error("the token file {path} has {bytes} bytes, more than {MAX_BYTES}", path = path.display())]
    TooLarge { path: PathBuf, bytes: u64 },
    #[error("the token file {path} is not valid: {cause}", path = path.display())]
    Mistake { path: PathBuf, cause: Mistake },
    #[error(
        "{kind} {name:?} exists already; choose another name, or remove it with `visage token revoke {name}`"
    )]
    Exists { kind: &'static str, name: String },
    #[error("failed to create a secret: the system has no random numbers")]
    NoRandomness,
}

/// Reads the file; `None` if it does not exist.
pub(super) fn read(path: &Path) -> Result<Option<Credentials>, TokenFileError> {
    let Some(text) = read_text(path)? else {
        return Ok(None);
    };
    let parsed = Credentials::parse(&text);
    parsed.map(Some).map_err(|cause| TokenFileError::Mistake {
        path: path.to_owned(),
        cause,
    })
}

pub(super) fn read_text(path: &Path) -> Result<Option<String>, TokenFileError> {
    let io = |cause| TokenFileError::Io {
        path: path.to_owned(),
        cause,
    };
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error)),
    };
    let metadata = file.metadata().map_err(io)?;
    let mode = metadata.permissions().mode() & 0o777;
    // Secrets of Kubernetes and credentials of systemd belong to root, and are readable by the
    // group or, as an access control list shows in the mode, by one user.
    let is_delivered = mode == 0o440 && metadata.uid() == 0;
    if mode & 0o077 != 0 && !is_delivered {
        return Err(TokenFileError::Exposed {
            path: path.to_owned(),
            mode,
        });
    }
    if metadata.uid() != 0 && metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(TokenFileError::ForeignOwner {
            path: path.to_owned(),
        });
    }
    if metadata.len() > MAX_BYTES {
        return Err(TokenFileError::TooLarge {
            path: path.to_owned(),
            bytes: metadata.len(),
        });
    }
    io::read_to_string(file).map(Some).map_err(io)
}

pub(super) fn parse(path: &Path, text: &str) -> Result<DocumentMut, TokenFileError> {
    text.parse()
        .map_err(|error: toml_edit::TomlError| TokenFileError::Mistake {
            path: path.to_owned(),
            cause: Mistake::Syntax {
                line: line_of(text, error.span()),
                message: error.message().to_owned(),
            },
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files;

    #[test]
    fn file_that_others_can_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokens.toml");
        files::write_atomic(&path, b"version = 1\n").unwrap();
        assert!(read(&path).unwrap().is_some());
        for mode in [0o640, 0o604, 0o444, 0o660] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let error = read(&path).unwrap_err();
            assert!(error.to_string().contains("chmod 600"), "{error}");
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o440)).unwrap();
        let is_root = rustix::process::geteuid().is_root();
        assert_eq!(read(&path).is_ok(), is_root);
    }
}
