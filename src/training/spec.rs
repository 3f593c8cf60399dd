//! What a client asks for, checked and with every default filled in.
//!
//! [`Spec::resolve`] is the only way in: a `Spec` cannot hold a value out of range. All violations are told at once, each with the full path of
//! its field in the request.

use std::time::Duration;

use crate::{
    model::{device::Precision, resnet18::Trained},
    proto::v1,
};

pub use crate::model::init::Init;

use super::{feature_cache::CachePolicy, flat::AdamOptions};

/// One field of the request that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Such as `spec.optimizer.learning_rate`.
    pub field: String,
    /// What is wrong with which value, and what is allowed.
    pub description: String,
}

/// A checked training specification; see `TrainingSpec` in the API for meaning, units and defaults.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    /// The labelled images.
    pub dataset: DatasetSpec,
    /// The weights to begin with.
    pub init: Init,
    /// What is trained.
    pub trained: Trained,
    /// Passes over the training images.
    pub max_epochs: u32,
    /// Images in a step.
    pub batch_size: usize,
    /// Side of the network input in pixels.
    pub input_size: u32,
    /// How the weights are updated.
    pub optimizer: AdamOptions,
    /// Validations without improvement before stopping; 0 never stops.
    pub patience: u32,
    /// Least fall of the validation loss that counts, in squared years.
    pub min_delta: f64,
    /// Seed of everything random.
    pub seed: u64,
    /// Whether the new version becomes live.
    pub promote: Promote,
    /// Whether the head's bias starts at the mean training age.
    pub mean_age_bias: bool,
    /// Longest running time.
    pub max_duration: Option<Duration>,
    /// Where the frozen layers' features are kept.
    pub feature_cache: CachePolicy,
    /// Most bytes of features; `None` for what there is room for.
    pub cache_budget: Option<u64>,
    /// Number format of the convolutions; `None` for the fastest of the device.
    pub precision: Option<Precision>,
}

/// The labelled images; see `DatasetSpec` in the API.
#[derive(Debug, Clone, PartialEq)]
pub struct DatasetSpec {
    /// Folder or manifest.
    pub path: String,
    /// Share of images for validation.
    pub validation_fraction: f64,
    /// Share of images for the test.
    pub test_fraction: f64,
    /// Youngest accepted age in years.
    pub min_age: f64,
    /// Oldest accepted age in years.
    pub max_age: f64,
    /// Share of rejects above which the training fails.
    pub max_reject_share: f64,
}

/// Whether a new version becomes live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promote {
    /// Always.
    Always,
    /// When it beats the live version on the same validation images.
    IfBetter,
    /// Never.
    Never,
}

impl Spec {
    /// Checks a request's spec and fills in the defaults.
    ///
    /// # Errors
    /// All violations at once.
    pub fn resolve(spec: Option<&v1::TrainingSpec>) -> Result<Self, Vec<Violation>> {
        let mut check = Check::default();
        let empty = v1::TrainingSpec::default();
        if spec.is_none() {
            check.refuse(
                "spec",
                "it is missing; at least spec.dataset.path is needed",
            );
            return Err(check.violations);
        }
        let spec = spec.unwrap_or(&empty);
        let optimizer = spec.optimizer.unwrap_or_default();
        let early_stopping = spec.early_stopping.unwrap_or_default();
        let resolved = Spec {
            dataset: check.dataset(spec.dataset.as_ref()),
            init: check.init(spec.init.as_ref()),
            trained: check.trained(&spec.trainable),
            max_epochs: check.integer("spec.max_epochs", spec.max_epochs, 10, 1..=10_000),
            batch_size: check.integer("spec.batch_size", spec.batch_size, 32, 1..=4_096) as usize,
            input_size: check.integer("spec.input_size", spec.input_size, 224, 32..=1_024),
            optimizer: AdamOptions {
                learning_rate: check.number(
                    "spec.optimizer.learning_rate",
                    optimizer.learning_rate,
                    1e-4,
                    Range::ABOVE_ZERO,
                ),
                beta1: check.number(
                    "spec.optimizer.beta1",
                    optimizer.beta1,
                    0.9,
                    Range::BELOW_ONE,
                ),
                beta2: check.number(
                    "spec.optimizer.beta2",
                    optimizer.beta2,
                    0.999,
                    Range::BELOW_ONE,
                ),
                epsilon: check.number(
                    "spec.optimizer.epsilon",
                    optimizer.epsilon,
                    1e-8,
                    Range::ABOVE_ZERO,
                ),
                weight_decay: check.number(
                    "spec.optimizer.weight_decay",
                    optimizer.weight_decay,
                    0.0,
                    Range::NOT_NEGATIVE,
                ),
            },
            patience: check.integer(
                "spec.early_stopping.patience",
                early_stopping.patience,
                0,
                0..=10_000,
            ),
            min_delta: check.number(
                "spec.early_stopping.min_delta",
                early_stopping.min_delta,
                0.0,
                Range::NOT_NEGATIVE,
            ),
            seed: spec.seed.unwrap_or(42),
            promote: check.promote(spec.promote),
            mean_age_bias: check.mean_age_bias(spec.head_bias),
            max_duration: check.duration("spec.max_duration", spec.max_duration.as_ref()),
            feature_cache: check.feature_cache(spec.feature_cache),
            cache_budget: spec.cache_budget_bytes,
            precision: check.precision(spec.precision),
        };
        if resolved.batch_size == 1 && resolved.input_size <= SINGLE_VALUE_SIZE {
            check.refuse(
                "spec.batch_size",
                format!(
                    "1 leaves a BatchNorm of layer4 a single value at input_size {}; take 2 or more, or a larger input",
                    resolved.input_size
                ),
            );
        }
        if check.violations.is_empty() {
            Ok(resolved)
        } else {
            Err(check.violations)
        }
    }

    /// The same as a message with every field set; resolving it again gives the same `Spec`.
    pub fn to_message(&self) -> v1::TrainingSpec {
        let (kind, path) = match &self.init {
            Init::ImageNet => (v1::InitKind::Imagenet1kV1, String::new()),
            Init::Path(path) => (v1::InitKind::Path, path.clone()),
            Init::Random => (v1::InitKind::Random, String::new()),
        };
        let promote = match self.promote {
            Promote::Always => v1::Promote::Always,
            Promote::IfBetter => v1::Promote::IfBetter,
            Promote::Never => v1::Promote::Never,
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
        };
        let head_bias = if self.mean_age_bias {
            v1::HeadBias::MeanAge
        } else {
            v1::HeadBias::Keep
        };
        v1::TrainingSpec {
            dataset: Some(v1::DatasetSpec {
                path: self.dataset.path.clone(),
                validation_fraction: Some(self.dataset.validation_fraction),
                test_fraction: Some(self.dataset.test_fraction),
                min_age: Some(self.dataset.min_age),
                max_age: Some(self.dataset.max_age),
                max_reject_share: Some(self.dataset.max_reject_share),
            }),
            init: Some(v1::InitSpec {
                kind: kind.into(),
                path,
            }),
            trainable: self.trained.names(),
            max_epochs: Some(self.max_epochs),
            batch_size: Some(self.batch_size as u32),
            input_size: Some(self.input_size),
            optimizer: Some(v1::OptimizerSpec {
                learning_rate: Some(self.optimizer.learning_rate),
                beta1: Some(self.optimizer.beta1),
                beta2: Some(self.optimizer.beta2),
                epsilon: Some(self.optimizer.epsilon),
                weight_decay: Some(self.optimizer.weight_decay),
            }),
            early_stopping: Some(v1::EarlyStoppingSpec {
                patience: Some(self.patience),
                min_delta: Some(self.min_delta),
            }),
            seed: Some(self.seed),
            promote: promote.into(),
            head_bias: head_bias.into(),
            max_duration: self
                .max_duration
                .and_then(|duration| prost_types::Duration::try_from(duration).ok()),
            feature_cache: feature_cache.into(),
            cache_budget_bytes: self.cache_budget,
            precision: precision.into(),
        }
    }
}

/// Up to this side of the network's input, in pixels, layer4 has one value a picture and channel, whose variance is zero.
pub const SINGLE_VALUE_SIZE: u32 = 32;

/// Longest time that a protobuf Duration may hold, in seconds (google/protobuf/duration.proto).
const LONGEST_DURATION: Duration = Duration::from_secs(315_576_000_000);

/// Collects violations while the fields are read.
#[derive(Default)]
struct Check {
    violations: Vec<Violation>,
}

impl Check {
    fn refuse(&mut self, field: &str, description: impl Into<String>) {
        self.violations.push(Violation {
            field: field.to_owned(),
            description: description.into(),
        });
    }

    fn integer(
        &mut self,
        field: &str,
        given: Option<u32>,
        default: u32,
        allowed: std::ops::RangeInclusive<u32>,
    ) -> u32 {
        let value = given.unwrap_or(default);
        if !allowed.contains(&value) {
            self.refuse(
                field,
                format!(
                    "{value} is out of range; {} to {} is allowed",
                    allowed.start(),
                    allowed.end()
                ),
            );
        }
        value
    }

    fn number(&mut self, field: &str, given: Option<f64>, default: f64, allowed: Range) -> f64 {
        let value = given.unwrap_or(default);
        if !(allowed.test)(value) {
            self.refuse(
                field,
                format!("{value} is out of range; it must be {}", allowed.text),
            );
        }
        value
    }

    fn duration(&mut self, field: &str, given: Option<&prost_types::Duration>) -> Option<Duration> {
        let given = given?;
        match Duration::try_from(*given) {
            Ok(duration) if !duration.is_zero() && duration <= LONGEST_DURATION => Some(duration),
            _ => {
                self.refuse(
                    field,
                    format!(
                        "{} s is out of range; it must be above 0 s and at most {} s",
                        given.seconds,
                        LONGEST_DURATION.as_secs()
                    ),
                );
                None
            }
        }
    }

    fn dataset(&mut self, given: Option<&v1::DatasetSpec>) -> DatasetSpec {
        let empty = v1::DatasetSpec::default();
        let given = given.unwrap_or(&empty);
        if given.path.is_empty() {
            self.refuse(
                "spec.dataset.path",
                "it is empty; name a folder of images or a CSV manifest on the server",
            );
        }
        let fraction = Range {
            test: |value| (0.0..=0.9).contains(&value),
            text: "from 0 to 0.9",
        };
        let age = Range {
            test: |value| (0.0..=1_000.0).contains(&value),
            text: "from 0 to 1000 years",
        };
        let dataset = DatasetSpec {
            path: given.path.clone(),
            validation_fraction: self.number(
                "spec.dataset.validation_fraction",
                given.validation_fraction,
                0.1,
                fraction,
            ),
            test_fraction: self.number(
                "spec.dataset.test_fraction",
                given.test_fraction,
                0.1,
                fraction,
            ),
            min_age: self.number("spec.dataset.min_age", given.min_age, 0.0, age),
            max_age: self.number("spec.dataset.max_age", given.max_age, 120.0, age),
            max_reject_share: self.number(
                "spec.dataset.max_reject_share",
                given.max_reject_share,
                0.2,
                Range::SHARE,
            ),
        };
        let held_out = dataset.validation_fraction + dataset.test_fraction;
        if held_out > 0.95 {
            self.refuse(
                "spec.dataset.test_fraction",
                format!("validation and test take {held_out} of the images together; leave at least 0.05 for training"),
            );
        }
        if dataset.min_age > dataset.max_age {
            self.refuse(
                "spec.dataset.min_age",
                format!(
                    "{} is above spec.dataset.max_age, {}",
                    dataset.min_age, dataset.max_age
                ),
            );
        }
        dataset
    }

    fn init(&mut self, given: Option<&v1::InitSpec>) -> Init {
        let Some(given) = given else {
            return Init::ImageNet;
        };
        let init = match v1::InitKind::try_from(given.kind) {
            Ok(v1::InitKind::Unspecified | v1::InitKind::Imagenet1kV1) => Init::ImageNet,
            Ok(v1::InitKind::Random) => Init::Random,
            Ok(v1::InitKind::Path) => Init::Path(given.path.clone()),
            Err(_) => {
                self.refuse(
                    "spec.init.kind",
                    format!("{} is not known to this server", given.kind),
                );
                Init::ImageNet
            }
        };
        match &init {
            Init::Path(path) if path.is_empty() => {
                self.refuse(
                    "spec.init.path",
                    "it is empty; name a .pth or .safetensors file on the server",
                );
            }
            Init::ImageNet | Init::Random if !given.path.is_empty() => {
                self.refuse(
                    "spec.init.path",
                    format!("{:?} is given but spec.init.kind is not PATH", given.path),
                );
            }
            Init::Path(_) | Init::ImageNet | Init::Random => {}
        }
        init
    }

    fn trained(&mut self, given: &[String]) -> Trained {
        if given.is_empty() {
            return Trained::DEFAULT;
        }
        Trained::parse(given).unwrap_or_else(|error| {
            self.refuse("spec.trainable", error.to_string());
            Trained::DEFAULT
        })
    }

    fn promote(&mut self, given: i32) -> Promote {
        match v1::Promote::try_from(given) {
            Ok(v1::Promote::Always) => Promote::Always,
            Ok(v1::Promote::Unspecified | v1::Promote::IfBetter) => Promote::IfBetter,
            Ok(v1::Promote::Never) => Promote::Never,
            Err(_) => {
                self.refuse(
                    "spec.promote",
                    format!("{given} is not known to this server"),
                );
                Promote::IfBetter
            }
        }
    }

    fn feature_cache(&mut self, given: i32) -> CachePolicy {
        match v1::FeatureCache::try_from(given) {
            Ok(v1::FeatureCache::Unspecified | v1::FeatureCache::Auto) => CachePolicy::Auto,
            Ok(v1::FeatureCache::Off) => CachePolicy::Off,
            Ok(v1::FeatureCache::Memory) => CachePolicy::Memory,
            Ok(v1::FeatureCache::Disk) => CachePolicy::Disk,
            Ok(v1::FeatureCache::Device) => CachePolicy::Device,
            Err(_) => {
                self.refuse(
                    "spec.feature_cache",
                    format!("{given} is not known to this server"),
                );
                CachePolicy::Auto
            }
        }
    }

    fn precision(&mut self, given: i32) -> Option<Precision> {
        match v1::Precision::try_from(given) {
            Ok(v1::Precision::Unspecified | v1::Precision::Auto) => None,
            Ok(v1::Precision::F32) => Some(Precision::F32),
            Ok(v1::Precision::Bf16) => Some(Precision::Bf16),
            Err(_) => {
                self.refuse(
                    "spec.precision",
                    format!("{given} is not known to this server"),
                );
                None
            }
        }
    }

    fn mean_age_bias(&mut self, given: i32) -> bool {
        match v1::HeadBias::try_from(given) {
            Ok(v1::HeadBias::Unspecified | v1::HeadBias::MeanAge) => true,
            Ok(v1::HeadBias::Keep) => false,
            Err(_) => {
                self.refuse(
                    "spec.head_bias",
                    format!("{given} is not known to this server"),
                );
                true
            }
        }
    }
}

/// Which numbers are allowed, and how to say it.
#[derive(Clone, Copy)]
struct Range {
    test: fn(f64) -> bool,
    text: &'static str,
}

impl Range {
    const ABOVE_ZERO: Range = Range {
        test: |value| value > 0.0 && value.is_finite(),
        text: "above 0",
    };
    const NOT_NEGATIVE: Range = Range {
        test: |value| value >= 0.0 && value.is_finite(),
        text: "0 or more",
    };
    const BELOW_ONE: Range = Range {
        test: |value| (0.0..1.0).contains(&value),
        text: "from 0 to below 1",
    };
    const SHARE: Range = Range {
        test: |value| (0.0..=1.0).contains(&value),
        text: "from 0 to 1",
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minimal() -> v1::TrainingSpec {
        v1::TrainingSpec {
            dataset: Some(v1::DatasetSpec {
                path: "faces".to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn defaults_are_the_reference_recipe() {
        let spec = Spec::resolve(Some(&minimal())).unwrap();
        assert_eq!(spec.max_epochs, 10);
        assert_eq!(spec.batch_size, 32);
        assert_eq!(spec.input_size, 224);
        assert_eq!(spec.init, Init::ImageNet);
        assert_eq!(spec.trained.names(), ["layer4", "fc"]);
        assert_eq!(spec.optimizer.learning_rate, 1e-4);
        assert_eq!((spec.optimizer.beta1, spec.optimizer.beta2), (0.9, 0.999));
        assert_eq!(
            (spec.optimizer.epsilon, spec.optimizer.weight_decay),
            (1e-8, 0.0)
        );
        assert!(spec.mean_age_bias);
    }

    #[test]
    fn a_resolved_spec_resolves_to_itself() {
        let spec = Spec::resolve(Some(&minimal())).unwrap();
        assert_eq!(Spec::resolve(Some(&spec.to_message())).unwrap(), spec);
    }

    #[test]
    fn all_violations_are_told_at_once_with_their_paths() {
        let spec = v1::TrainingSpec {
            max_epochs: Some(0),
            batch_size: Some(5_000),
            input_size: Some(16),
            trainable: vec!["layer3".to_owned(), "fc".to_owned()],
            optimizer: Some(v1::OptimizerSpec {
                learning_rate: Some(-1.0),
                beta1: Some(1.0),
                epsilon: Some(f64::NAN),
                ..Default::default()
            }),
            init: Some(v1::InitSpec {
                kind: v1::InitKind::Path.into(),
                path: String::new(),
            }),
            promote: 77,
            ..Default::default()
        };
        let violations = Spec::resolve(Some(&spec)).unwrap_err();
        let fields: Vec<_> = violations
            .iter()
            .map(|violation| violation.field.as_str())
            .collect();
        assert_eq!(
            fields,
            [
                "spec.dataset.path",
                "spec.init.path",
                "spec.trainable",
                "spec.max_epochs",
                "spec.batch_size",
                "spec.input_size",
                "spec.optimizer.learning_rate",
                "spec.optimizer.beta1",
                "spec.optimizer.epsilon",
                "spec.promote",
            ]
        );
        assert!(
            violations[2]
                .description
                .contains("add layer4 or leave layer3 out")
        );
        assert_eq!(
            violations[4].description,
            "5000 is out of range; 1 to 4096 is allowed"
        );
    }
}
