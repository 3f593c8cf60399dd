//! PredictionService, and the predictions of every other protocol.
//!
//! - `service`: the methods of PredictionService. `batch`: its stream PredictBatch.
//! - `resolver`: checks, model names and the call of the predictor, for every protocol.
//! - `interval`: the confidence level of intervals.
//! - `message`: conversion to messages.

mod batch;
mod interval;
mod message;
mod resolver;
mod service;

pub(super) use interval::interval_level;
pub(super) use resolver::PredictionInput;
pub(crate) use resolver::PredictionResolver;
pub(crate) use {batch::BatchStreams, service::PredictionApi};
