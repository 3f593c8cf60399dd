//! Recipes: values for the fields that a request does not set, all by one name.
//!
//! [`Recipe::values`] is the one place where they stand. A recipe sets nothing that a request could not take back, such as a limit whose absence means
//! that there is none, and nothing that is about the data, the machine or what becomes live.

use crate::proto::{self, v1};

/// A set of values for fields that are not set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recipe {
    /// The fields' own defaults.
    Reference,
    /// For the lowest error.
    Best,
    /// For a first model within minutes.
    Fast,
}

impl Recipe {
    /// What the recipe says where it differs from the fields' own defaults.
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
                    // A tenth of a standard deviation is about two years, so that larger errors count by their size.
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
                // The only change of images whose features can be kept.
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

    /// The request with the recipe's values in the fields that it does not set.
    pub(super) fn fill(self, asked: &v1::TrainingSpec) -> v1::TrainingSpec {
        proto::fill_unset(asked, &self.values())
    }
}
