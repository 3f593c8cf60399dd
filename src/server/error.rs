use std::{net::SocketAddr, path::PathBuf};

use super::network::TlsError;
use crate::{
    access, artifacts, dataset, datasets, model, registry, store,
    telemetry::{exporter, traces},
    training::supervisor,
};

/// The reason why the server did not start, or stopped early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(
        "failed to listen on {address}: {source}; stop the other server, or choose other ports with --grpc-listen and --http-listen"
    )]
    Listen {
        address: SocketAddr,
        source: std::io::Error,
    },
    #[error(
        "failed to listen on the socket {}: {source}; stop the server that uses it, remove the file, or name another path with --grpc-socket or --http-socket", path.display()
    )]
    ListenUnix {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(
        "failed to write ready_file {}: its directory does not exist; create it, or name another file",
        .0.display()
    )]
    ReadyFile(PathBuf),
    #[error(transparent)]
    TokenFile(#[from] access::TokenFileError),
    #[error(transparent)]
    Oidc(#[from] access::OidcError),
    #[error("failed to open the audit log {}: {source}; name another file, or set audit_log to off", .path.display())]
    AuditLog {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error(transparent)]
    Artifacts(#[from] artifacts::Error),
    #[error(transparent)]
    Roots(#[from] dataset::Error),
    #[error(transparent)]
    Model(#[from] model::Error),
    #[error("failed to register the starter: {0}")]
    Starter(#[from] registry::Error),
    #[error(transparent)]
    Supervisor(#[from] supervisor::Error),
    #[error(transparent)]
    Datasets(#[from] datasets::Error),
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error("failed to start the decoding threads: {0}")]
    Pool(#[from] rayon::ThreadPoolBuildError),
    #[error(transparent)]
    Metrics(#[from] exporter::Error),
    #[error(transparent)]
    Traces(#[from] traces::Error),
    #[error("failed to set up server reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}
