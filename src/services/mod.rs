//! The gRPC services and the REST form of the Open Inference Protocol. Each method converts its
//! request, calls a component, and converts the result back.
//!
//! - [`training`], [`event_stream`]: TrainingService. [`model`], [`evaluation`]: ModelService.
//!   [`prediction`]: PredictionService. [`dataset`]: DatasetService. [`system`], [`disk_use`]:
//!   SystemService.
//! - [`open_inference`]: the Open Inference Protocol. [`uploads`]: uploads over HTTP.
//!   [`predict_page`]: predictions of single images over HTTP.
//! - [`status`]: the one place where an error becomes a `Status`.
//! - [`caller`], `page`, `dataset_input`, [`request_body`]: parts of requests. `compression`,
//!   `download`, `http`: parts of responses. [`limit`], [`stream_limit`], [`streaming_job`],
//!   `task`: how calls run. [`event_log`]: reads that event streams share.
//!
//! No service holds a tensor.

mod authorize;
pub(crate) mod caller;
mod compression;
pub(crate) mod dataset;
mod dataset_input;
pub(crate) mod disk_use;
mod download;
pub(crate) mod evaluation;
pub(crate) mod event_log;
pub(crate) mod event_stream;
mod http;
pub(crate) mod limit;
pub(crate) mod model;
pub(crate) mod open_inference;
mod page;
pub(crate) mod predict_page;
pub(crate) mod prediction;
pub(crate) mod request_body;
pub(crate) mod status;
pub(crate) mod stream_limit;
pub(crate) mod streaming_job;
pub(crate) mod system;
mod task;
pub(crate) mod training;
pub(crate) mod uploads;
