//! The checked training specification.

use std::time::Duration;

use crate::{
    dataset::{DEFAULT_SEED, DatasetSpec},
    imaging::augment::Augmentation,
    model::{self, init::Init, precision::Precision, resnet18::TrainableFrom, starter},
    proto::{
        v1,
        validation::{Check, Range, Violation},
    },
    store::Promotion,
    training::{
        feature_cache::CachePolicy, loss::LossSpec, metric::Metric, optimizer::OptimizerOptions,
        schedule::Schedule,
    },
};

use super::{augmentation, choices, init, limits, loss, optimizer, recipes::Recipe, shards};

/// A checked training specification with every default filled in.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Spec {
    /// Source of the values that the request did not set.
    pub(crate) recipe: Recipe,
    pub(crate) dataset: DatasetSpec,
    pub(crate) init: Init,
    /// Layers that are trained.
    pub(crate) trained: TrainableFrom,
    pub(crate) max_epochs: u32,
    pub(crate) batch_size: usize,
    /// Parts of a batch with their own gradient and BatchNorm statistics; a power of two that
    /// divides the batch.
    pub(crate) shards: usize,
    /// Side of the network input in pixels.
    pub(crate) input_size: u32,
    pub(crate) optimizer: OptimizerOptions,
    pub(crate) loss: LossSpec,
    pub(crate) schedule: Schedule,
    /// Decay of the moving average of the weights; `None` for no average.
    pub(crate) ema_decay: Option<f64>,
    /// The network learns standardised ages instead of years.
    pub(crate) standardise_targets: bool,
    pub(crate) augmentation: Augmentation,
    /// BatchNorms of trained layers keep their statistics.
    pub(crate) freeze_batch_norm: bool,
    /// Metric that selects the best epoch.
    pub(crate) monitor: Metric,
    /// Metric and value at which the training stops.
    pub(crate) target: Option<(Metric, f64)>,
    /// Validations without improvement before the training stops; 0 to never stop.
    pub(crate) patience: u32,
    /// Smallest improvement of the monitored metric that counts, in its unit.
    pub(crate) min_delta: f64,
    pub(crate) seed: u64,
    /// The best checkpoint becomes a model version when the training succeeds.
    pub(crate) create_version: bool,
    /// Rule by which that version becomes live; never without a version.
    pub(crate) promote: Promotion,
    /// The bias of the head starts at the mean training age.
    pub(crate) mean_age_bias: bool,
    /// Longest running time.
    pub(crate) max_duration: Option<Duration>,
    pub(crate) feature_cache: CachePolicy,
    /// Largest feature cache in bytes; `None` for the available space.
    pub(crate) cache_budget: Option<u64>,
    /// `None` for the fastest precision of the device.
    pub(crate) precision: Option<Precision>,
    /// Starts without a new full checkpoint before the training fails; `None` for the setting of
    /// the server.
    pub(crate) max_restarts: Option<u32>,
    /// A lack of memory halves the batch instead of failing the training.
    pub(crate) reduce_batch_on_oom: bool,
    /// Longest time between two full checkpoints.
    pub(crate) checkpoint_interval: Duration,
}

/// Largest side of the network input, in pixels, at which layer4 has one value per image and
/// channel. Its variance is zero.
pub(crate) const SINGLE_VALUE_SIZE: u32 = 32;

impl Spec {
    /// Checks the spec of a request and fills in the defaults.
    ///
    /// # Errors
    /// All violations at once.
    pub(crate) fn resolve(spec: Option<&v1::TrainingSpec>) -> Result<Self, Vec<Violation>> {
        let mut check = Check::default();
        let Some(spec) = spec else {
            return Err(vec![Violation {
                field: "spec".to_owned(),
                description: "is required; set at least spec.dataset.path".to_owned(),
            }]);
        };
        let recipe = Recipe::read(&mut check, spec.recipe);
        let spec = &recipe.fill(spec);
        let early_stopping = spec.early_stopping.unwrap_or_default();
        let dataset = DatasetSpec::read(spec.dataset.as_ref(), "spec.dataset.", &mut check);
        let init = init::read(&mut check, spec.init.as_ref());
        let trained = read_trained(&mut check, &spec.trainable);
        // The head of the starter predicts ages already. Its frozen layers expect its input size.
        let (head_bias, input_size) = match init {
            Init::Starter => (v1::HeadBias::Keep, starter::manifest().input.size),
            Init::ImageNet | Init::Path { .. } | Init::Random => (v1::HeadBias::MeanAge, 224),
        };
        let resolved = Spec {
            recipe,
            dataset,
            init,
            trained,
            max_epochs: limits::max_epochs(&mut check, "spec.max_epochs", spec.max_epochs),
            batch_size: check.integer("spec.batch_size", spec.batch_size, 32, 1..=4_096) as usize,
            shards: shards::read(&mut check, spec.shards),
            input_size: check.integer("spec.input_size", spec.input_size, input_size, 32..=1_024),
            optimizer: optimizer::read(&mut check, spec.optimizer.as_ref(), trained),
            loss: loss::read_loss(&mut check, spec.loss.as_ref()),
            schedule: loss::read_schedule(&mut check, spec.schedule.as_ref()),
            ema_decay: Some(check.number("spec.ema_decay", spec.ema_decay, 0.0, Range::BELOW_ONE))
                .filter(|decay| *decay > 0.0),
            standardise_targets: check.choice(
                "spec.target_scale",
                spec.target_scale,
                v1::TargetScale::Years,
            ) == v1::TargetScale::Standardised,
            augmentation: augmentation::read(&mut check, spec.augmentation.as_ref()),
            freeze_batch_norm: check.choice(
                "spec.batch_norm",
                spec.batch_norm,
                v1::BatchNormPolicy::Update,
            ) == v1::BatchNormPolicy::Frozen,
            monitor: choices::read_metric(&mut check, "spec.monitor", spec.monitor, Metric::Loss),
            target: choices::read_target(&mut check, spec.target.as_ref()),
            patience: limits::patience(
                &mut check,
                "spec.early_stopping.patience",
                early_stopping.patience,
            ),
            min_delta: check.number(
                "spec.early_stopping.min_delta",
                early_stopping.min_delta,
                0.0,
                Range::NOT_NEGATIVE,
            ),
            seed: spec.seed.unwrap_or(DEFAULT_SEED),
            create_version: spec.create_version.unwrap_or(true),
            promote: choices::read_promotion(&mut check, spec.promote, spec.create_version),
            mean_age_bias: check.choice("spec.head_bias", spec.head_bias, head_bias)
                == v1::HeadBias::MeanAge,
            max_duration: limits::max_duration(&mut check, spec.max_duration.as_ref()),
            feature_cache: choices::read_cache_policy(&mut check, spec.feature_cache),
            cache_budget: spec.cache_budget_bytes,
            precision: choices::read_precision(&mut check, spec.precision),
            max_restarts: limits::max_restarts(&mut check, spec.restart_policy.as_ref()),
            reduce_batch_on_oom: check.choice(
                "spec.on_oom",
                spec.on_oom,
                v1::OnOutOfMemory::ReduceBatch,
            ) == v1::OnOutOfMemory::ReduceBatch,
            checkpoint_interval: limits::checkpoint_interval(
                &mut check,
                spec.checkpoint_interval.as_ref(),
            ),
        };
        if resolved.batch_size == 1
            && resolved.input_size <= SINGLE_VALUE_SIZE
            && !resolved.freeze_batch_norm
        {
            check.refuse(
                "spec.batch_size",
                format!(
                    "must be at least 2 at input_size {}, because a BatchNorm of layer4 cannot normalise a single value; raise it or the input size",
                    resolved.input_size
                ),
            );
        }
        shards::check_batch(&mut check, &resolved);
        check.finish(resolved)
    }

    /// Returns the message with every field set; resolving it again gives an equal value.
    pub(crate) fn to_message(&self) -> v1::TrainingSpec {
        let target_scale = if self.standardise_targets {
            v1::TargetScale::Standardised
        } else {
            v1::TargetScale::Years
        };
        let batch_norm = if self.freeze_batch_norm {
            v1::BatchNormPolicy::Frozen
        } else {
            v1::BatchNormPolicy::Update
        };
        let head_bias = if self.mean_age_bias {
            v1::HeadBias::MeanAge
        } else {
            v1::HeadBias::Keep
        };
        let on_oom = if self.reduce_batch_on_oom {
            v1::OnOutOfMemory::ReduceBatch
        } else {
            v1::OnOutOfMemory::Fail
        };
        v1::TrainingSpec {
            dataset: Some(self.dataset.to_message()),
            init: Some(init::message(&self.init)),
            trainable: self.trained.names(),
            max_epochs: Some(self.max_epochs),
            batch_size: Some(self.batch_size as u32),
            input_size: Some(self.input_size),
            optimizer: Some(optimizer::message(&self.optimizer)),
            early_stopping: Some(v1::EarlyStoppingSpec {
                patience: Some(self.patience),
                min_delta: Some(self.min_delta),
            }),
            seed: Some(self.seed),
            promote: choices::promotion_message(self.promote).into(),
            head_bias: head_bias.into(),
            max_duration: self.max_duration.and_then(limits::duration_message),
            feature_cache: choices::cache_policy_message(self.feature_cache).into(),
            cache_budget_bytes: self.cache_budget,
            precision: choices::precision_message(self.precision).into(),
            loss: Some(loss::loss_message(self.loss)),
            schedule: Some(loss::schedule_message(self.schedule)),
            ema_decay: Some(self.ema_decay.unwrap_or(0.0)),
            target_scale: target_scale.into(),
            augmentation: Some(augmentation::message(&self.augmentation)),
            batch_norm: batch_norm.into(),
            monitor: choices::metric_message(self.monitor).into(),
            target: self.target.map(|(metric, value)| v1::TargetSpec {
                metric: choices::metric_message(metric).into(),
                value,
            }),
            restart_policy: Some(v1::RestartPolicy {
                max_restarts: self.max_restarts,
            }),
            on_oom: on_oom.into(),
            checkpoint_interval: limits::duration_message(self.checkpoint_interval),
            recipe: self.recipe.message().into(),
            create_version: Some(self.create_version),
            shards: Some(self.shards as u32),
        }
    }
}

/// Returns the layers to train, or the default layers.
fn read_trained(check: &mut Check, given: &[String]) -> TrainableFrom {
    if given.is_empty() {
        return TrainableFrom::DEFAULT;
    }
    TrainableFrom::parse(given).unwrap_or_else(|error| {
        // Without the name, which the field repeats.
        let rule = if let model::Error::Trainable(rule) = error {
            rule
        } else {
            error.to_string()
        };
        check.refuse("spec.trainable", rule);
        TrainableFrom::DEFAULT
    })
}
