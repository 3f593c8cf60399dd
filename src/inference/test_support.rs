//! Values for unit tests.

use std::{sync::Arc, time::Duration};

use super::{Prediction, ServedModel};
use crate::{imaging::InputSpec, model::checkpoint::LabelScale};

/// A version whose weights do not exist; its name stands for their SHA-256, too.
pub(super) fn model(name: &str) -> Arc<ServedModel> {
    Arc::new(ServedModel {
        name: name.to_owned(),
        weights: "model.safetensors".into(),
        sha256: name.to_owned(),
        input: InputSpec::default(),
        label: LabelScale {
            scale: 1.0,
            offset: 0.0,
        },
        calibration: None,
        mean_training_age: None,
    })
}

pub(super) fn prediction() -> Prediction {
    Prediction {
        age: 30.0,
        interval: None,
        dimensions: (1, 1),
        annotated_png: None,
        explanation: None,
        faces: None,
        cached: None,
        decode: Duration::from_secs(1),
        queue: Duration::from_secs(1),
        inference: Duration::from_secs(1),
    }
}
