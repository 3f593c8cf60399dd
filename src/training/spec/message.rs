//! Back to a request with every field set.

use std::time::Duration;

use crate::{
    model::precision::Precision,
    proto::v1,
    store::Promotion,
    training::{
        feature_cache::CachePolicy,
        monitor::Metric,
        objective::{Function, Loss},
        optimizer::{OptimizerOptions, Rule},
        schedule::{Course, Schedule},
    },
};

use super::{Init, Recipe, Spec};

impl Spec {
    /// The same as a message with every field set; resolving it again gives the same `Spec`.
    pub fn to_message(&self) -> v1::TrainingSpec {
        let (kind, path, key) = match &self.init {
            Init::ImageNet => (v1::InitKind::Imagenet1kV1, "", ""),
            Init::Path { path, key } => (v1::InitKind::Path, path.as_str(), key.as_str()),
            Init::Random => (v1::InitKind::Random, "", ""),
            Init::Starter => (v1::InitKind::Starter, "", ""),
        };
        let recipe = match self.recipe {
            Recipe::Reference => v1::Recipe::Reference,
            Recipe::Best => v1::Recipe::Best,
            Recipe::Fast => v1::Recipe::Fast,
        };
        let promote = match self.promote {
            Promotion::Always => v1::Promote::Always,
            Promotion::IfBetter => v1::Promote::IfBetter,
            Promotion::Never => v1::Promote::Never,
        };
        let feature_cache = match self.feature_cache {
            CachePolicy::Auto => v1::FeatureCache::Auto,
            CachePolicy::Off => v1::FeatureCache::Off,
            CachePolicy::Memory => v1::FeatureCache::Memory,
            CachePolicy::Disk => v1::FeatureCache::Disk,
            CachePolicy::Device => v1::FeatureCache::Device,
        };
        let precision = match self.precision {
            None => v1::Precision::Auto,
            Some(Precision::F32) => v1::Precision::F32,
            Some(Precision::Bf16) => v1::Precision::Bf16,
            Some(Precision::F16 | Precision::F16Weights) => {
                unreachable!("a spec resolves to f32 or bf16")
            }
        };
        let either = |is_first: bool, first: i32, second: i32| match is_first {
            true => first,
            false => second,
        };
        let augmentation = &self.augmentation;
        v1::TrainingSpec {
            dataset: Some(self.dataset.to_message()),
            init: Some(v1::InitSpec {
                kind: kind.into(),
                path: path.to_owned(),
                key: key.to_owned(),
            }),
            trainable: self.trained.names(),
            max_epochs: Some(self.max_epochs),
            batch_size: Some(self.batch_size as u32),
            input_size: Some(self.input_size),
            optimizer: Some(optimizer(&self.optimizer)),
            early_stopping: Some(v1::EarlyStoppingSpec {
                patience: Some(self.patience),
                min_delta: Some(self.min_delta),
            }),
            seed: Some(self.seed),
            promote: promote.into(),
            head_bias: either(
                self.mean_age_bias,
                v1::HeadBias::MeanAge.into(),
                v1::HeadBias::Keep.into(),
            ),
            max_duration: self.max_duration.and_then(duration),
            feature_cache: feature_cache.into(),
            cache_budget_bytes: self.cache_budget,
            precision: precision.into(),
            loss: Some(loss(self.loss)),
            schedule: Some(schedule(self.schedule)),
            ema_decay: Some(self.ema_decay.unwrap_or(0.0)),
            target_scale: either(
                self.standardise_targets,
                v1::TargetScale::Standardised.into(),
                v1::TargetScale::Years.into(),
            ),
            augmentation: Some(v1::AugmentationSpec {
                horizontal_flip: Some(augmentation.horizontal_flip),
                min_crop_area: Some(augmentation.min_crop_area),
                brightness: Some(augmentation.brightness),
                contrast: Some(augmentation.contrast),
                saturation: Some(augmentation.saturation),
                erasing: Some(augmentation.erasing),
            }),
            batch_norm: either(
                self.freeze_batch_norm,
                v1::BatchNormPolicy::Frozen.into(),
                v1::BatchNormPolicy::Update.into(),
            ),
            monitor: metric(self.monitor).into(),
            target: self.target.map(|(of, value)| v1::TargetSpec {
                metric: metric(of).into(),
                value,
            }),
            restart_policy: Some(v1::RestartPolicy {
                max_restarts: self.max_restarts,
            }),
            on_oom: either(
                self.reduce_batch_on_oom,
                v1::OnOutOfMemory::ReduceBatch.into(),
                v1::OnOutOfMemory::Fail.into(),
            ),
            checkpoint_interval: duration(self.checkpoint_interval),
            recipe: recipe.into(),
        }
    }
}

fn optimizer(options: &OptimizerOptions) -> v1::OptimizerSpec {
    let kind = match options.rule {
        Rule::Adam => v1::OptimizerKind::Adam,
        Rule::AdamW => v1::OptimizerKind::Adamw,
        Rule::Sgd => v1::OptimizerKind::Sgd,
    };
    v1::OptimizerSpec {
        kind: kind.into(),
        learning_rate: Some(options.learning_rate),
        beta1: Some(options.beta1),
        beta2: Some(options.beta2),
        epsilon: Some(options.epsilon),
        weight_decay: Some(options.weight_decay),
        momentum: Some(options.momentum),
        max_gradient_norm: options.max_gradient_norm,
        groups: options
            .groups
            .iter()
            .map(|(prefix, factor)| v1::LearningRateGroup {
                prefix: prefix.clone(),
                factor: *factor,
            })
            .collect(),
    }
}

fn loss(loss: Loss) -> v1::LossSpec {
    let kind = match loss.function {
        Function::Mse => v1::LossKind::Mse,
        Function::SmoothL1 => v1::LossKind::SmoothL1,
        Function::L1 => v1::LossKind::L1,
    };
    v1::LossSpec {
        kind: kind.into(),
        beta: Some(loss.beta),
    }
}

fn schedule(schedule: Schedule) -> v1::ScheduleSpec {
    let kind = match schedule.course {
        Course::Constant => v1::ScheduleKind::Constant,
        Course::Cosine => v1::ScheduleKind::Cosine,
        Course::Plateau => v1::ScheduleKind::Plateau,
    };
    v1::ScheduleSpec {
        kind: kind.into(),
        warmup_epochs: Some(schedule.warmup_epochs),
        min_factor: Some(schedule.min_factor),
        plateau_factor: Some(schedule.plateau_factor),
        plateau_patience: Some(schedule.plateau_patience),
    }
}

fn metric(metric: Metric) -> v1::Metric {
    match metric {
        Metric::ValLoss => v1::Metric::ValLoss,
        Metric::ValRmse => v1::Metric::ValRmse,
        Metric::ValMae => v1::Metric::ValMae,
    }
}

fn duration(duration: Duration) -> Option<prost_types::Duration> {
    prost_types::Duration::try_from(duration).ok()
}
