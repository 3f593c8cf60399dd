use std::{io, path::PathBuf};

use tokio_rustls::rustls;

/// The reason why the files of the TLS settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("failed to read {setting}: {source}; name a PEM file that the server's user can read")]
    Read {
        setting: &'static str,
        source: io::Error,
    },
    #[error("{setting} must be a PEM file with {expected}, got {}: {cause}", path.display())]
    Content {
        setting: &'static str,
        path: PathBuf,
        expected: &'static str,
        cause: String,
    },
    #[error(
        "tls_key {} does not belong to tls_cert {}, whose first certificate must be that of the server; name the key that this certificate was issued for",
        key.display(),
        cert.display()
    )]
    Mismatch { cert: PathBuf, key: PathBuf },
    #[error("failed to use tls_cert {} with tls_key {}: {source}", cert.display(), key.display())]
    Pair {
        cert: PathBuf,
        key: PathBuf,
        source: rustls::Error,
    },
}
