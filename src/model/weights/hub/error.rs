//! Errors of the download.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::options::NAME;
use crate::model::weights::MAX_FILE_BYTES;

/// A failed download. Addresses are shown without their query, which can contain a signature.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    #[error("offline mode is on and the cache {cache_dir} does not have {NAME}")]
    Offline { cache_dir: PathBuf },
    /// Name not found, connection refused, timeout or bad certificate.
    #[error("no response from {url}: {source}")]
    NoResponse {
        url: String,
        source: Box<ureq::Error>,
    },
    /// A response other than the file or a redirect.
    #[error("{url} returned {status}, expected 200")]
    Status { url: String, status: String },
    #[error("{url} redirects {problem}")]
    Redirect { url: String, problem: String },
    #[error("the connection to {url} was lost after {received} bytes: {source}")]
    Interrupted {
        url: String,
        received: u64,
        source: io::Error,
    },
    #[error("{url} sent more than {MAX_FILE_BYTES} bytes")]
    TooLarge { url: String },
    #[error("the file from {url} has SHA-256 {found}, expected {expected} ({origin})")]
    Digest {
        url: String,
        expected: String,
        found: String,
        origin: &'static str,
    },
    #[error("{url} states no SHA-256 for the file and none is configured")]
    NoDigest { url: String },
    #[error("failed to write the hub's cache {directory}: {source}")]
    Cache {
        directory: PathBuf,
        source: io::Error,
    },
}

impl HubError {
    pub(super) fn cache(directory: &Path, source: io::Error) -> Self {
        HubError::Cache {
            directory: directory.to_owned(),
            source,
        }
    }
}
