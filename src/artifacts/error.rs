//! Errors of the artifact store.

use std::{
    error::Error as StdError,
    io::{self, ErrorKind},
};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("artifact {digest} does not exist")]
    NotFound { digest: String },
    #[error(
        "artifact {digest} is damaged: its bytes have the SHA-256 {found}; restore it from a backup"
    )]
    Corrupt { digest: String, found: String },
    #[error("artifact {digest} must have at most {limit} bytes to be read at once")]
    TooLarge { digest: String, limit: usize },
    #[error("a digest must be 64 characters of 0-9 and a-f, got {text:?}")]
    BadDigest { text: String },
    #[error(
        "the disk of the artifacts is full; nothing was written: free disk space and try again"
    )]
    DiskFull {
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The source names the file.
    #[error("failed to read or write a file")]
    File { source: io::Error },
    #[error("the artifact store failed")]
    Store { source: object_store::Error },
}

impl Error {
    /// Returns true if another attempt may succeed.
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

/// Returns true if the disk or the quota was full, anywhere in the chain of causes.
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
