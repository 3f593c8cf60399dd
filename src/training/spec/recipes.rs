//! Recipes: named sets of values for the fields that a request does not set.
//!
//! A recipe sets no field that a request could not reset, such as an optional limit, and none that
//! concerns the data, the machine or promotion.

use crate::proto::{self, v1, validation::Check};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Recipe {
    /// The defaults of the fields.
    Reference,
    /// Lowest error.
    Best,
    /// A first model within minutes.
    Fast,
}

impl Recipe {
    pub(super) fn read(check: &mut Check, given: i32) -> Self {
        match check.choice("spec.recipe", given, v1::Recipe::Reference) {
            v1::Recipe::Unspecified | v1::Recipe::Reference => Recipe::Reference,
            v1::Recipe::Best => Recipe::Best,
            v1::Recipe::Fast => Recipe::Fast,
        }
    }

    pub(super) fn message(self) -> v1::Recipe {
        match self {
            Recipe::Reference => v1::Recipe::Reference,
            Recipe::Best => v1::Recipe::Best,
            Recipe::Fast => v1::Recipe::Fast,
        }
    }

    /// Values that differ from the defaults of the fields.
    fn values(self) -> v1::TrainingSpec {
        let starter = v1::InitSpec {
            kind: v1::InitKind::Starter.into(),
            ..Default::default()
        };
        let parts = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        match self {
            Recipe::Reference => v1::TrainingSpec::default(),
            Recipe::Best => v1::TrainingSpec {
                init: Some(starter),
                trainable: parts(&["layer3", "layer4", "fc"]),
                max_epochs: Some(15),
                optimizer: Some(v1::OptimizerSpec {
                    kind: v1::OptimizerKind::Adamw.into(),
                    learning_rate: Some(3e-4),
                    weight_decay: Some(0.05),
                    ..Default::default()
                }),
                loss: Some(v1::LossSpec {
                    kind: v1::LossKind::SmoothL1.into(),
                    // A tenth of a standard deviation, about two years.
                    beta: Some(0.1),
                }),
                target_scale: v1::TargetScale::Standardised.into(),
                schedule: Some(v1::ScheduleSpec {
                    kind: v1::ScheduleKind::Cosine.into(),
                    warmup_epochs: Some(1.0),
                    ..Default::default()
                }),
                ema_decay: Some(0.998),
                augmentation: Some(v1::AugmentationSpec {
                    horizontal_flip: Some(true),
                    min_crop_area: Some(0.65),
                    brightness: Some(0.2),
                    contrast: Some(0.2),
                    saturation: Some(0.2),
                    erasing: Some(0.1),
                }),
                monitor: v1::Metric::ValMae.into(),
                ..Default::default()
            },
            Recipe::Fast => v1::TrainingSpec {
                init: Some(starter),
                trainable: parts(&["layer4", "fc"]),
                max_epochs: Some(5),
                optimizer: Some(v1::OptimizerSpec {
                    kind: v1::OptimizerKind::Adamw.into(),
                    learning_rate: Some(1e-3),
                    weight_decay: Some(0.01),
                    ..Default::default()
                }),
                schedule: Some(v1::ScheduleSpec {
                    kind: v1::ScheduleKind::Cosine.into(),
                    ..Default::default()
                }),
                // The only augmentation that the feature cache supports.
                augmentation: Some(v1::AugmentationSpec {
                    horizontal_flip: Some(true),
                    ..Default::default()
                }),
                feature_cache: v1::FeatureCache::Auto.into(),
                monitor: v1::Metric::ValMae.into(),
                ..Default::default()
            },
        }
    }

    /// Fills the unset fields of a request.
    pub(super) fn fill(self, given: &v1::TrainingSpec) -> v1::TrainingSpec {
        proto::fill_unset(given, &self.values())
    }
}
