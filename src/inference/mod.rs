//! Predict: encoded images in, ages out.
//!
//! - [`admission`]: how many images may be in the server at once, and how many of them one [`client`] may have there (`fairness`). `pace`: how long they wait.
//! - [`predictor`]: decoding on a bounded pool (`decoding`), the way to the engine and back.
//! - `cache`: answers that were given before.
//! - [`engine`]: the one thread that owns the loaded models and computes batches. `queue`: which images go first.
//! - `loader`: the thread that reads models beside it. `loaded`: a version's network in the fastest number format that changes its ages by little enough.
//! - `faces`: the way of an image whose faces are to be found.
//! - [`annotate`]: draws ages on images. [`explain`]: which parts of an image make its age.
//! - [`statistics`]: what each version has done. `outcomes`: what became of a request's images. `spans`: what the trace of a call is told.
//! - [`background`]: ages on many files, beside what clients wait for.
//!
//! Nothing here knows of trainings, aliases or the database: a caller hands over a [`ServedModel`] that says which weights to use.

use std::{path::PathBuf, time::Duration};

use crate::{
    imaging::{self, InputSpec},
    model::{
        self,
        calibration::Calibration,
        checkpoint::{LabelScale, Manifest},
    },
};

mod admission;
mod annotate;
mod background;
mod cache;
mod client;
mod computing;
mod decoding;
mod engine;
mod explain;
mod faces;
mod fairness;
mod input;
mod loaded;
mod loader;
mod outcomes;
mod pace;
mod predictor;
mod queue;
mod spans;
mod statistics;

pub use background::{FilePrediction, predict_files};
pub use client::Client;
pub use engine::{Engine, EngineOptions};
pub use loaded::PrecisionReport;
pub use predictor::{
    FacePrediction, Image, PredictOptions, PredictRequest, Prediction, Predictor,
    RenderedExplanation,
};
pub use statistics::{Total, VersionStatistics};

/// Who goes first when images wait.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Priority {
    /// Somebody waits for the answer.
    #[default]
    Interactive,
    /// Nobody does; it takes what the others leave, and never all permits.
    Batch,
}

/// A model version that can be served: what its manifest says, and where its weights lie.
#[derive(Debug, Clone, PartialEq)]
pub struct ServedModel {
    /// `models/{model}/versions/{n}`, or the checkpoint that may become one.
    pub name: String,
    /// `model.safetensors` on the local disk.
    pub weights: PathBuf,
    /// Its SHA-256 in hex; also the key under which the engine keeps it.
    pub sha256: String,
    /// How an image becomes the network's input.
    pub input: InputSpec,
    /// How an output becomes an age.
    pub label: LabelScale,
    /// For intervals.
    pub calibration: Option<Calibration>,
    /// Mean age of the images that it was trained on, in years, where the manifest tells.
    pub mean_training_age: Option<f64>,
}

impl ServedModel {
    /// Joins a version's name and weights with its manifest.
    pub fn new(name: String, weights: PathBuf, sha256: String, manifest: Manifest) -> Self {
        ServedModel {
            name,
            weights,
            sha256,
            input: manifest.input,
            label: manifest.label,
            calibration: manifest.calibration,
            mean_training_age: manifest.dataset.mean_training_age,
        }
    }
}

/// Why an image got no age.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The image cannot be read.
    #[error("image {index}: {source}")]
    Image {
        /// Its permit in the request, from 0.
        index: usize,
        /// Why not.
        source: imaging::Error,
    },
    /// The image's file cannot be read.
    #[error("image {index}: {source}")]
    File {
        /// Its permit in the list, from 0.
        index: usize,
        /// Why not.
        source: std::io::Error,
    },
    /// The numbers that were sent in permit of an image are none.
    #[error("image {index}: {reason}")]
    Pixels {
        /// Its permit in the request, from 0.
        index: usize,
        /// What is wrong with them.
        reason: String,
    },
    /// Too many images wait.
    #[error(
        "{waiting} images are waiting and {wanted} more would pass the limit of {limit}; try again in a moment or send fewer at once"
    )]
    QueueFull {
        /// Images that wait.
        waiting: usize,
        /// Images of the request.
        wanted: usize,
        /// The limit.
        limit: usize,
    },
    /// One client has too many images waiting while others want to have theirs computed too.
    #[error(
        "{waiting} images of this client are waiting and {wanted} more would pass its share of {share}, because {clients} clients use the server; try again in a moment or send fewer at once"
    )]
    ShareFull {
        /// Images of the client that wait.
        waiting: usize,
        /// Images of the request.
        wanted: usize,
        /// How many a client may have waiting at this moment.
        share: usize,
        /// Clients that use the server at this moment.
        clients: usize,
    },
    /// The turn of the images will hardly come before the deadline.
    #[error(
        "{before} images are to be computed before, so the answer would take about {:.1} s, and the deadline is in {:.1} s; try again in a moment or give the call more time",
        expected.as_secs_f64(),
        left.as_secs_f64()
    )]
    WaitTooLong {
        /// Images that are computed before.
        before: usize,
        /// Time until the last image of the request is computed.
        expected: Duration,
        /// Time until the deadline.
        left: Duration,
    },
    /// The deadline passed before the work was done, or leaves less time than the work takes by itself.
    #[error("the call cannot be answered before its deadline")]
    DeadlineExceeded,
    /// The weights could not be loaded or the network failed.
    #[error("failed to compute with {model}: {source}")]
    Model {
        /// The version.
        model: String,
        /// Why.
        source: std::sync::Arc<model::Error>,
    },
    /// The output was not a number.
    #[error("{model} gave {value} for image {index}; its weights are damaged")]
    NotFinite {
        /// The version.
        model: String,
        /// What it gave.
        value: f64,
        /// The image's permit in the request, from 0.
        index: usize,
    },
    /// A thread of the server died.
    #[error("the inference engine is not running")]
    EngineGone,
}
