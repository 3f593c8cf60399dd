//! A model version to predict with.

use std::path::PathBuf;

use crate::{
    imaging::InputSpec,
    model::{
        calibration::Calibration,
        checkpoint::{LabelScale, Manifest},
    },
};

use super::Interval;

/// Location and manifest data of a model version.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ServedModel {
    /// `models/{model}/versions/{n}`, or the name of a checkpoint that may become one.
    pub name: String,
    /// Local path of `model.safetensors`.
    pub weights: PathBuf,
    /// SHA-256 of the weights in hex; also the engine's key for the loaded network.
    pub sha256: String,
    pub input: InputSpec,
    pub label: LabelScale,
    pub calibration: Option<Calibration>,
    /// Mean age of the training images in years; `None` for manifests without it.
    pub mean_training_age: Option<f64>,
}

impl ServedModel {
    pub(crate) fn new(name: String, weights: PathBuf, sha256: String, manifest: Manifest) -> Self {
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

    /// Returns the interval around a predicted age; `None` if the version lacks the level.
    pub(super) fn interval(&self, level: Option<f64>, age: f64) -> Option<Interval> {
        let level = level?;
        let (lower, upper) = self.calibration.as_ref()?.interval(level, age)?;
        Some(Interval {
            lower,
            upper,
            level,
        })
    }
}
