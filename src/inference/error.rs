//! Errors of predictions.

use std::{sync::Arc, time::Duration};

use crate::{imaging, model};

/// Reason why an image has no prediction.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("image {index}: {source}")]
    Image {
        /// Position in the request, from 0.
        index: usize,
        source: imaging::Error,
    },
    /// The image file cannot be read.
    #[error("image {index}: {source}")]
    File {
        /// Position in the list, from 0.
        index: usize,
        source: std::io::Error,
    },
    /// A preprocessed image cannot be used.
    #[error("image {index}: {reason}")]
    Pixels {
        /// Position in the request, from 0.
        index: usize,
        reason: String,
    },
    #[error(
        "{waiting} images are waiting and {wanted} more would exceed the limit of {limit}; try again in a moment or send fewer at once"
    )]
    QueueFull {
        waiting: usize,
        wanted: usize,
        limit: usize,
    },
    /// The client has used its share of the queue while other clients need theirs.
    #[error(
        "{waiting} images of this client are waiting and {wanted} more would exceed its share of {share}, because {clients} clients use the server; try again in a moment or send fewer at once"
    )]
    ShareFull {
        waiting: usize,
        wanted: usize,
        /// Images that one client may have waiting at this moment.
        share: usize,
        /// Clients that use the server at this moment.
        clients: usize,
    },
    /// The images are unlikely to be computed before the deadline.
    #[error(
        "{ahead} images are queued ahead and the estimated wait of {:.1} s exceeds the deadline in {:.1} s; try again in a moment or set a later deadline",
        expected.as_secs_f64(),
        left.as_secs_f64()
    )]
    WaitTooLong {
        /// Images that are computed first.
        ahead: usize,
        /// Estimated time until the last image of the request is computed.
        expected: Duration,
        /// Time until the deadline.
        left: Duration,
    },
    /// The deadline has passed, or is closer than the time that the work takes on an idle server.
    #[error("the request cannot be completed before its deadline")]
    DeadlineExceeded,
    /// The weights cannot be loaded, or the forward pass failed.
    #[error("failed to compute with {model}: {source}")]
    Model {
        /// Name of the version.
        model: String,
        source: Arc<model::Error>,
    },
    #[error("{model} returned {value} for image {index}; its weights are damaged")]
    NotFinite {
        /// Name of the version.
        model: String,
        value: f64,
        /// Position in the request, from 0.
        index: usize,
    },
    /// A thread of the server has stopped.
    #[error("the inference engine is not running")]
    EngineGone,
}

impl Error {
    pub(super) fn model(model: &str, source: model::Error) -> Self {
        Error::Model {
            model: model.to_owned(),
            source: Arc::new(source),
        }
    }
}
