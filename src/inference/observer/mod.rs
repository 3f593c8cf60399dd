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

pub(super) use batch::{batch_computed, batch_failed};
pub(super) use image::{
    cache_looked_up, decoded, faces_detected, image_decoded, image_dequeued, images_in_flight,
    rejected, rejected_for,
};
pub(super) use request::RequestObserver;
pub use statistics::{Statistics, Total, VersionStatistics};
