//! What can go wrong in the artifact store.

use std::error::Error as StdError;
use std::io::{self, ErrorKind};

/// Failures of the artifact store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no artifact with this digest.
    #[error("artifact {digest} does not exist")]
    NotFound {
        /// SHA-256 in hex.
        digest: String,
    },
    /// The stored bytes are not those that were put in.
    #[error(
        "artifact {digest} is damaged: its bytes have the SHA-256 {found}; restore it from a backup"
    )]
    Corrupt {
        /// SHA-256 in hex, which is also the artifact's name.
        digest: String,
        /// SHA-256 of the stored bytes in hex.
        found: String,
    },
    /// The text is not a digest.
    #[error("{text:?} is not a SHA-256: expected 64 of 0-9 and a-f")]
    BadDigest {
        /// The text as given.
        text: String,
    },
    /// There is no room on the disk; nothing was kept.
    #[error("the disk of the artifacts is full; nothing was written: make room and try again")]
    DiskFull {
        /// What reported it.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// A file outside of the store, or the store's directory, cannot be used; the source names it.
    #[error("a file cannot be read or written")]
    File {
        /// What the operating system said.
        source: io::Error,
    },
    /// Any other failure of the store.
    #[error("the artifact store failed")]
    Store {
        /// What the store said.
        source: object_store::Error,
    },
}

impl Error {
    /// Whether the same may work at another try.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::File { .. } | Self::Store { .. })
    }
}

impl From<object_store::Error> for Error {
    fn from(source: object_store::Error) -> Self {
        if is_out_of_space(&source) {
            return Self::DiskFull {
                source: source.into(),
            };
        }
        Self::Store { source }
    }
}

impl From<io::Error> for Error {
    fn from(source: io::Error) -> Self {
        if is_out_of_space(&source) {
            return Self::DiskFull {
                source: source.into(),
            };
        }
        Self::File { source }
    }
}

/// Whether the disk or the user's quota had no room, anywhere in the chain of causes.
fn is_out_of_space(error: &(dyn StdError + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>()
            && matches!(
                error.kind(),
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded
            )
        {
            return true;
        }
        cause = error.source();
    }
    false
}
