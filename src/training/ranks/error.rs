//! Failures of the ranks of a training.

use std::io;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("failed to start rank {rank} of the training: {cause}")]
    Start { rank: usize, cause: io::Error },
    #[error("failed to connect rank {rank} to the {count} ranks of the training: {cause}")]
    Connect {
        rank: usize,
        count: usize,
        cause: String,
    },
    #[error("failed to exchange data with the other ranks of the training: {0}")]
    Exchange(String),
}
