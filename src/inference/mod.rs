//! Serving: encoded images in, ages out.
//!
//! A request visits these modules in this order:
//!
//! 1. `predictor`: the entry points. One call admits and predicts.
//! 2. `admission`: permits, client quotas and deadline checks.
//! 3. `cache`: earlier predictions, by image content.
//! 4. `whole_image` or `faces`: prediction on the image as a whole, or on each face in it.
//! 5. `pipeline`: the decoding threads (`decode`), on which clients take `turns`, and the hand-over
//!    to the engine.
//! 6. `queue`: images that wait for the engine, in priority order.
//! 7. `engine`: the thread that owns the models and computes batches. `loaded`: one such model.
//! 8. `annotate` and `explain`: drawings on images, for requests that ask for them.
//!
//! `observer` records outcomes, durations, statistics and spans on the way. `background` predicts
//! the files of a dataset alongside client requests.
//!
//! This module does not depend on trainings, aliases or the database: callers pass a
//! [`ServedModel`].

mod admission;
mod annotate;
mod background;
mod cache;
mod decode;
mod engine;
mod error;
mod explain;
mod faces;
mod job;
mod loaded;
mod model_io;
mod observer;
mod pipeline;
mod prediction;
mod predictor;
mod queue;
mod request;
mod served_model;
#[cfg(test)]
mod test_support;
mod turns;
mod whole_image;

pub(crate) use background::{FilePrediction, predict_files};
pub(crate) use engine::{Engine, EngineOptions};
pub(crate) use error::Error;
pub(crate) use loaded::PrecisionReport;
pub(crate) use observer::{Statistics, Total, VersionStatistics};
pub(crate) use prediction::{FacePrediction, Interval, Prediction, RenderedExplanation};
pub(crate) use predictor::Predictor;
pub(crate) use request::{Client, Image, PredictOptions, PredictRequest, Priority};
pub(crate) use served_model::ServedModel;
