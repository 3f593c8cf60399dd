//! Records what happens to requests: outcomes, durations, statistics by version, and spans.
//!
//! - `request`: a request from its arrival to its end.
//! - `image`: the steps of one image.
//! - `batch`: forward passes.
//! - `statistics`: totals by model version, for clients that ask about one version.

mod batch;
mod image;
mod request;
mod statistics;

pub(super) use crate::telemetry::metrics::{
    image_decoded, image_dequeued, prediction_queue_depth as images_in_flight,
    prediction_rejected as rejected,
};
pub(super) use batch::{batch_computed, batch_failed};
pub(super) use image::{cache_looked_up, decoded, faces_detected, rejected_for};
pub(super) use request::RequestObserver;
pub(crate) use statistics::{Statistics, Total, VersionStatistics};
