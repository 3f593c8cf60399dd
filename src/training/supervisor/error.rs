//! Errors of requests to the supervisor.

use std::io;

use crate::{artifacts, disk::DiskLow, names::of_state, proto::v1::TrainingState, store};

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error(transparent)]
    Artifacts(#[from] artifacts::Error),
    #[error(transparent)]
    DiskLow(#[from] DiskLow),
    #[error("failed to query the free disk space: {0}")]
    Disk(#[from] io::Error),
    #[error(
        "only its owner, {owner}, and clients with the role admin may change {name}; ask one of them"
    )]
    NotOwner { name: String, owner: String },
    #[error("{name} has already ended as {}", of_state(*.state))]
    AlreadyEnded { name: String, state: TrainingState },
    /// The training is stopping or pausing, which must finish first.
    #[error(
        "{name} cannot be {action} while it is {}; wait until it has ended or paused",
        of_state(*.state)
    )]
    NotNow {
        name: String,
        state: TrainingState,
        /// Past participle of the request, such as `paused`.
        action: &'static str,
    },
}
