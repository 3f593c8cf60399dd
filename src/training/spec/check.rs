//! Reading a request's fields and collecting what is wrong with them.

use std::time::Duration;

use crate::{
    imaging::augment::Augmentation,
    model::{
        precision::Precision,
        resnet18::{TrainableFrom, is_parameter, layout},
    },
    proto::{
        v1,
        validation::{Check, Range},
    },
    store::Promotion,
    training::{
        feature_cache::CachePolicy,
        monitor::Metric,
        objective::{Function, Loss},
        optimizer::{OptimizerOptions, Rule},
        schedule::{Course, Schedule},
    },
};

use super::{Init, Recipe};

/// Longest time that a protobuf Duration may hold, in seconds (google/protobuf/duration.proto).
const LONGEST_DURATION: Duration = Duration::from_secs(315_576_000_000);

/// Longest place of a network within a file, in bytes.
const MAX_INIT_KEY: usize = 1_024;

/// Groups of parameters with a learning rate of their own; the network has 62 parameters.
const MAX_GROUPS: usize = 64;

impl Check {
    fn duration(
        &mut self,
        field: &str,
        given: &prost_types::Duration,
        longest: Duration,
    ) -> Option<Duration> {
        match Duration::try_from(*given) {
            Ok(duration) if !duration.is_zero() && duration <= longest => Some(duration),
            _ => {
                self.refuse(
                    field,
                    format!(
                        "{} s is out of range; it must be above 0 s and at most {} s",
                        given.seconds,
                        longest.as_secs()
                    ),
                );
                None
            }
        }
    }

    pub(super) fn max_epochs(&mut self, field: &str, given: Option<u32>) -> u32 {
        self.integer(field, given, 10, 1..=10_000)
    }

    pub(super) fn patience(&mut self, field: &str, given: Option<u32>) -> u32 {
        self.integer(field, given, 0, 0..=10_000)
    }

    pub(super) fn learning_rate(&mut self, field: &str, given: Option<f64>) -> f64 {
        self.number(field, given, 1e-4, Range::POSITIVE)
    }

    pub(super) fn max_duration(
        &mut self,
        given: Option<&prost_types::Duration>,
    ) -> Option<Duration> {
        self.duration("spec.max_duration", given?, LONGEST_DURATION)
    }

    pub(super) fn checkpoint_interval(
        &mut self,
        given: Option<&prost_types::Duration>,
    ) -> Duration {
        const DEFAULT: Duration = Duration::from_secs(300);
        const LONGEST: Duration = Duration::from_secs(24 * 3_600);
        let Some(given) = given else {
            return DEFAULT;
        };
        let field = "spec.checkpoint_interval";
        let interval = self.duration(field, given, LONGEST).unwrap_or(DEFAULT);
        if interval < Duration::from_secs(1) {
            self.refuse(
                field,
                format!("{interval:?} is out of range; it must be 1 s or more"),
            );
        }
        interval
    }

    pub(super) fn recipe(&mut self, given: i32) -> Recipe {
        match self.choice("spec.recipe", given, v1::Recipe::Reference) {
            v1::Recipe::Unspecified | v1::Recipe::Reference => Recipe::Reference,
            v1::Recipe::Best => Recipe::Best,
            v1::Recipe::Fast => Recipe::Fast,
        }
    }

    pub(super) fn init(&mut self, given: Option<&v1::InitSpec>) -> Init {
        let Some(given) = given else {
            return Init::ImageNet;
        };
        let kind = self.choice("spec.init.kind", given.kind, v1::InitKind::Imagenet1kV1);
        let init = match kind {
            v1::InitKind::Unspecified | v1::InitKind::Imagenet1kV1 => Init::ImageNet,
            v1::InitKind::Random => Init::Random,
            v1::InitKind::Starter => Init::Starter,
            v1::InitKind::Path => Init::Path {
                path: given.path.clone(),
                key: given.key.clone(),
            },
        };
        if given.key.len() > MAX_INIT_KEY {
            self.refuse(
                "spec.init.key",
                format!(
                    "it must have at most {MAX_INIT_KEY} bytes, got {}",
                    given.key.len()
                ),
            );
        }
        if !given.key.is_empty() && !matches!(init, Init::Path { .. }) {
            self.refuse(
                "spec.init.key",
                format!(
                    "it must be empty unless spec.init.kind is PATH, got {:?}",
                    given.key
                ),
            );
        }
        match &init {
            Init::Path { path, .. } if path.is_empty() => {
                self.refuse(
                    "spec.init.path",
                    "it is empty; name a .pth or .safetensors file on the server",
                );
            }
            Init::ImageNet | Init::Random | Init::Starter if !given.path.is_empty() => {
                self.refuse(
                    "spec.init.path",
                    format!("{:?} is given but spec.init.kind is not PATH", given.path),
                );
            }
            Init::Path { .. } | Init::ImageNet | Init::Random | Init::Starter => {}
        }
        init
    }

    pub(super) fn trained(&mut self, given: &[String]) -> TrainableFrom {
        if given.is_empty() {
            return TrainableFrom::DEFAULT;
        }
        TrainableFrom::parse(given).unwrap_or_else(|error| {
            self.refuse("spec.trainable", error.to_string());
            TrainableFrom::DEFAULT
        })
    }

    pub(super) fn optimizer(
        &mut self,
        given: Option<&v1::OptimizerSpec>,
        trained: TrainableFrom,
    ) -> OptimizerOptions {
        let empty = v1::OptimizerSpec::default();
        let given = given.unwrap_or(&empty);
        let rule = match self.choice("spec.optimizer.kind", given.kind, v1::OptimizerKind::Adam) {
            v1::OptimizerKind::Unspecified | v1::OptimizerKind::Adam => Rule::Adam,
            v1::OptimizerKind::Adamw => Rule::AdamW,
            v1::OptimizerKind::Sgd => Rule::Sgd,
        };
        let default_decay = if rule == Rule::AdamW { 0.01 } else { 0.0 };
        let mut number = |name: &str, given, default, allowed| {
            self.number(&format!("spec.optimizer.{name}"), given, default, allowed)
        };
        let options = OptimizerOptions {
            rule,
            learning_rate: number("learning_rate", given.learning_rate, 1e-4, Range::POSITIVE),
            beta1: number("beta1", given.beta1, 0.9, Range::BELOW_ONE),
            beta2: number("beta2", given.beta2, 0.999, Range::BELOW_ONE),
            epsilon: number("epsilon", given.epsilon, 1e-8, Range::POSITIVE),
            weight_decay: number(
                "weight_decay",
                given.weight_decay,
                default_decay,
                Range::NOT_NEGATIVE,
            ),
            momentum: number("momentum", given.momentum, 0.9, Range::BELOW_ONE),
            max_gradient_norm: given
                .max_gradient_norm
                .map(|norm| number("max_gradient_norm", Some(norm), norm, Range::POSITIVE)),
            groups: given
                .groups
                .iter()
                .map(|group| (group.prefix.clone(), group.factor))
                .collect(),
        };
        if options.groups.len() > MAX_GROUPS {
            self.refuse(
                "spec.optimizer.groups",
                format!(
                    "there are {} of them; at most {MAX_GROUPS} are allowed",
                    options.groups.len()
                ),
            );
            return options;
        }
        let trainable: Vec<String> = layout(1)
            .into_iter()
            .map(|(name, _)| name)
            .filter(|name| is_parameter(name) && trained.contains_name(name))
            .collect();
        for (index, (prefix, factor)) in options.groups.iter().enumerate() {
            let field = |name: &str| format!("spec.optimizer.groups[{index}].{name}");
            self.number(
                &field("factor"),
                Some(*factor),
                *factor,
                Range::NOT_NEGATIVE,
            );
            let fits = trainable
                .iter()
                .any(|name| name.starts_with(prefix.as_str()));
            if prefix.is_empty() || !fits {
                self.refuse(
                    &field("prefix"),
                    format!(
                        "{prefix:?} fits no trained parameter; the trained parts are {}",
                        trained.names().join(", ")
                    ),
                );
            }
            let is_repeated = options.groups[..index].iter().any(|one| one.0 == *prefix);
            if is_repeated {
                self.refuse(&field("prefix"), format!("{prefix:?} is given twice"));
            }
        }
        options
    }

    pub(super) fn loss(&mut self, given: Option<&v1::LossSpec>) -> Loss {
        let given = given.copied().unwrap_or_default();
        let kind = self.choice("spec.loss.kind", given.kind, v1::LossKind::Mse);
        let beta = self.number("spec.loss.beta", given.beta, 1.0, Range::POSITIVE);
        let function = match kind {
            v1::LossKind::Unspecified | v1::LossKind::Mse => Function::Mse,
            v1::LossKind::SmoothL1 => Function::SmoothL1,
            v1::LossKind::L1 => Function::L1,
        };
        Loss { function, beta }
    }

    pub(super) fn schedule(&mut self, given: Option<&v1::ScheduleSpec>) -> Schedule {
        let given = given.copied().unwrap_or_default();
        let kind = self.choice("spec.schedule.kind", given.kind, v1::ScheduleKind::Constant);
        let warmup = Range {
            contains: |value| (0.0..=1_000.0).contains(&value),
            rule: "from 0 to 1000 epochs",
        };
        let inside = Range {
            contains: |value| value > 0.0 && value < 1.0,
            rule: "above 0 and below 1",
        };
        Schedule {
            course: match kind {
                v1::ScheduleKind::Unspecified | v1::ScheduleKind::Constant => Course::Constant,
                v1::ScheduleKind::Cosine => Course::Cosine,
                v1::ScheduleKind::Plateau => Course::Plateau,
            },
            warmup_epochs: self.number(
                "spec.schedule.warmup_epochs",
                given.warmup_epochs,
                0.0,
                warmup,
            ),
            min_factor: self.number(
                "spec.schedule.min_factor",
                given.min_factor,
                0.0,
                Range::SHARE,
            ),
            plateau_factor: self.number(
                "spec.schedule.plateau_factor",
                given.plateau_factor,
                0.1,
                inside,
            ),
            plateau_patience: self.integer(
                "spec.schedule.plateau_patience",
                given.plateau_patience,
                5,
                0..=10_000,
            ),
        }
    }

    pub(super) fn ema_decay(&mut self, given: Option<f64>) -> Option<f64> {
        let decay = self.number("spec.ema_decay", given, 0.0, Range::BELOW_ONE);
        (decay > 0.0).then_some(decay)
    }

    pub(super) fn augmentation(&mut self, given: Option<&v1::AugmentationSpec>) -> Augmentation {
        let given = given.copied().unwrap_or_default();
        let mut share = |name: &str, given| {
            let field = format!("spec.augmentation.{name}");
            self.number(&field, given, 0.0, Range::SHARE)
        };
        let (brightness, contrast, saturation, erasing) = (
            share("brightness", given.brightness),
            share("contrast", given.contrast),
            share("saturation", given.saturation),
            share("erasing", given.erasing),
        );
        let area = Range {
            contains: |value| value > 0.0 && value <= 1.0,
            rule: "above 0 and at most 1",
        };
        Augmentation {
            horizontal_flip: given.horizontal_flip.unwrap_or(false),
            min_crop_area: self.number(
                "spec.augmentation.min_crop_area",
                given.min_crop_area,
                1.0,
                area,
            ),
            brightness,
            contrast,
            saturation,
            erasing,
        }
    }

    pub(super) fn metric(&mut self, field: &str, given: i32, default: Metric) -> Metric {
        match self.choice(field, given, v1::Metric::Unspecified) {
            v1::Metric::Unspecified => default,
            v1::Metric::ValLoss => Metric::ValLoss,
            v1::Metric::ValRmse => Metric::ValRmse,
            v1::Metric::ValMae => Metric::ValMae,
        }
    }

    pub(super) fn target(&mut self, given: Option<&v1::TargetSpec>) -> Option<(Metric, f64)> {
        let given = given?;
        let metric = self.metric("spec.target.metric", given.metric, Metric::ValMae);
        let value = self.number("spec.target.value", Some(given.value), 0.0, Range::POSITIVE);
        Some((metric, value))
    }

    pub(super) fn max_restarts(&mut self, given: Option<&v1::RestartPolicy>) -> Option<u32> {
        let given = given?.max_restarts?;
        let field = "spec.restart_policy.max_restarts";
        Some(self.integer(field, Some(given), given, 0..=1_000))
    }

    pub(super) fn promote(&mut self, given: i32) -> Promotion {
        match self.choice("spec.promote", given, v1::Promote::IfBetter) {
            v1::Promote::Always => Promotion::Always,
            v1::Promote::Unspecified | v1::Promote::IfBetter => Promotion::IfBetter,
            v1::Promote::Never => Promotion::Never,
        }
    }

    pub(super) fn feature_cache(&mut self, given: i32) -> CachePolicy {
        match self.choice("spec.feature_cache", given, v1::FeatureCache::Auto) {
            v1::FeatureCache::Unspecified | v1::FeatureCache::Auto => CachePolicy::Auto,
            v1::FeatureCache::Off => CachePolicy::Off,
            v1::FeatureCache::Memory => CachePolicy::Memory,
            v1::FeatureCache::Disk => CachePolicy::Disk,
            v1::FeatureCache::Device => CachePolicy::Device,
        }
    }

    pub(super) fn precision(&mut self, given: i32) -> Option<Precision> {
        match self.choice("spec.precision", given, v1::Precision::Auto) {
            v1::Precision::Unspecified | v1::Precision::Auto => None,
            v1::Precision::F32 => Some(Precision::F32),
            v1::Precision::Bf16 => Some(Precision::Bf16),
        }
    }
}
