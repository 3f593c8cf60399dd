//! Errors of commands, their messages and exit codes.

use std::{io, path::PathBuf, time::Duration};

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::{
    backup,
    cli::{
        output::text::duration_text,
        status_text::{describe, is_wrong_usage},
    },
    config, model, server, synth,
    telemetry::logging,
};

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Config(#[from] config::Error),
    #[error(
        "no server is reachable at {server} ({cause}); start one with `visage serve`, or select another with --server"
    )]
    Unreachable { server: String, cause: String },
    /// TLS failed; the cause contains the remedy.
    #[error("failed to connect to {server}: {cause}")]
    Connection { server: String, cause: String },
    #[error(
        "{server} is the HTTP port of the server; commands need its gRPC port: --server {grpc} or VISAGE_SERVER={grpc}"
    )]
    HttpPort { server: String, grpc: String },
    #[error(
        "lost contact with {server} for {silence} ({cause}); the training may still be running; follow it again with `{command}`",
        silence = duration_text(*silence)
    )]
    LostContact {
        server: String,
        silence: Duration,
        cause: String,
        command: String,
    },
    #[error("{}", describe(.0))]
    Refused(Box<Status>),
    #[error("the server sent an invalid response: {0}")]
    Contract(String),
    #[error(transparent)]
    Serve(Box<server::Error>),
    #[error(transparent)]
    Logging(#[from] logging::Error),
    #[error(transparent)]
    Backup(#[from] backup::Error),
    #[error("failed to draw the faces: {0}")]
    Synth(#[from] synth::Error),
    #[error(transparent)]
    Model(#[from] model::Error),
    #[error("{0}")]
    File(#[source] io::Error),
    #[error(
        "{path} differs from the stored file: expected {expected}, found {found}",
        path = path.display()
    )]
    Corrupt {
        path: PathBuf,
        expected: String,
        found: String,
    },
    #[error("failed to read the current directory: {0}")]
    CurrentDir(#[source] io::Error),
    #[error("failed to start the runtime: {0}")]
    Runtime(#[source] io::Error),
    #[error("failed to write to stdout: {0}")]
    Stdout(#[source] io::Error),
    /// Not printed: the reader, such as `| head`, has all it wants.
    #[error("stdout was closed")]
    BrokenPipe,
}

impl Error {
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Config(_) => 2,
            Self::Refused(status) if is_wrong_usage(status) => 2,
            Self::Unreachable { .. }
            | Self::Connection { .. }
            | Self::HttpPort { .. }
            | Self::LostContact { .. } => 3,
            Self::BrokenPipe => 141,
            Self::Refused(_)
            | Self::Contract(_)
            | Self::Serve(_)
            | Self::Logging(_)
            | Self::Backup(_)
            | Self::Synth(_)
            | Self::Model(_)
            | Self::File(_)
            | Self::Corrupt { .. }
            | Self::CurrentDir(_)
            | Self::Runtime(_)
            | Self::Stdout(_) => 1,
        }
    }
}

/// True if no response arrived, as opposed to a refusal by the server.
pub(crate) fn is_lost(status: &Status) -> bool {
    use std::error::Error as _;
    // Only a status that the transport created has a source.
    status.code() == Code::Unavailable || status.source().is_some()
}

/// The server's minimum delay before another attempt.
pub(crate) fn retry_delay(status: &Status) -> Option<Duration> {
    status.get_details_retry_info()?.retry_delay
}

/// The innermost cause, which says more than "transport error".
pub(crate) fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
