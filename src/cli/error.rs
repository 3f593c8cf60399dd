//! What a command can fail with, as people read it, and the exit code that scripts read.

use std::{io, path::PathBuf, time::Duration};

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::{config, model, server, synth, telemetry::logging};

use super::report::duration_text;

#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Config(#[from] config::Error),
    #[error(
        "no server answers at {server} ({cause}); start one with `visage serve`, or name another with --server"
    )]
    Unreachable { server: String, cause: String },
    #[error(
        "nothing was heard from {server} for {silence} ({cause}); the training may go on without us: follow it again with `{command}`",
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
    #[error("the server broke its contract: {0}")]
    Contract(String),
    #[error(transparent)]
    Serve(Box<server::Error>),
    #[error(transparent)]
    Logging(#[from] logging::Error),
    #[error("cannot make the faces: {0}")]
    Synth(#[from] synth::Error),
    #[error(transparent)]
    Model(#[from] model::Error),
    #[error(transparent)]
    Starter(#[from] model::starter::Error),
    #[error("{0}")]
    File(#[source] io::Error),
    #[error("{path} is not what the server stores: expected {expected}, found {found}", path = path.display())]
    Corrupt {
        path: PathBuf,
        expected: String,
        found: String,
    },
    #[error("cannot tell the current directory: {0}")]
    CurrentDir(#[source] io::Error),
    #[error("cannot start the runtime: {0}")]
    Runtime(#[source] io::Error),
    #[error("cannot write to stdout: {0}")]
    Stdout(#[source] io::Error),
    /// Nobody reads stdout any more (`| head`): not worth a word.
    #[error("the reader of stdout has left")]
    BrokenPipe,
}

impl Error {
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Config(_) => 2,
            Self::Unreachable { .. } | Self::LostContact { .. } => 3,
            Self::BrokenPipe => 141,
            Self::Refused(_)
            | Self::Contract(_)
            | Self::Serve(_)
            | Self::Logging(_)
            | Self::Synth(_)
            | Self::Model(_)
            | Self::Starter(_)
            | Self::File(_)
            | Self::Corrupt { .. }
            | Self::CurrentDir(_)
            | Self::Runtime(_)
            | Self::Stdout(_) => 1,
        }
    }
}

/// Whether the answer never came, as opposed to the server having refused.
pub(super) fn is_lost(status: &Status) -> bool {
    use std::error::Error as _;
    // A status that came over the wire has no source; one that the transport made has.
    status.code() == Code::Unavailable || status.source().is_some()
}

/// How long the server asks to wait before another try.
pub(super) fn retry_delay(status: &Status) -> Option<Duration> {
    status.get_details_retry_info()?.retry_delay
}

/// The innermost cause, which says more than "transport error".
pub(super) fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// The message, each violation on a line of its own, and when to try again.
pub(super) fn describe(status: &Status) -> String {
    let mut text = match status.message() {
        "" => format!("the server answered {:?}", status.code()),
        message => message.to_owned(),
    };
    if let Some(bad_request) = status.get_details_bad_request() {
        let lines = bad_request
            .field_violations
            .into_iter()
            .map(|violation| format!("{}: {}", violation.field, violation.description));
        // A single one is the message already.
        for line in lines.filter(|line| *line != status.message()) {
            text.push_str(&format!("\n  {line}"));
        }
    }
    if let Some(delay) = retry_delay(status) {
        text.push_str(&format!("\n  try again in {}", duration_text(delay)));
    }
    text
}
