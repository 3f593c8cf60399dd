//! What a client asks for, checked and with every default filled in.
//!
//! [`Spec::resolve`] is the only way in: a `Spec` cannot hold a value out of range. All violations are told at once, each with the full path of
//! its field in the request. Meaning, units and defaults of all fields are those of `TrainingSpec` in the API.
//!
//! - `check`: reading a request's fields and collecting what is wrong with them.
//! - `recipes`: values for the fields that a request does not set, all by one name.
//! - `message`: back to a request with every field set.
//! - `change`: what may change while a training is live.

use std::time::Duration;

use crate::{
    dataset::{DEFAULT_SEED, DatasetSpec},
    imaging::augment::Augmentation,
    model::{precision::Precision, resnet18::TrainableFrom, starter},
    proto::{
        v1,
        validation::{Check, Range, Violation},
    },
    store::Promotion,
};

pub use crate::model::init::Init;

use super::{
    feature_cache::CachePolicy, monitor::Metric, objective::Loss, optimizer::OptimizerOptions,
    schedule::Schedule,
};

mod change;
mod check;
mod message;
mod recipes;
#[cfg(test)]
mod tests;

pub use change::{Changes, change, halve_batch};
pub use recipes::Recipe;

/// A checked training specification.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    /// What the fields that were not set come from.
    pub recipe: Recipe,
    /// The labelled images.
    pub dataset: DatasetSpec,
    /// The weights to begin with.
    pub init: Init,
    /// What is trained.
    pub trained: TrainableFrom,
    /// Passes over the training images.
    pub max_epochs: u32,
    /// Images in a step.
    pub batch_size: usize,
    /// Side of the network input in pixels.
    pub input_size: u32,
    /// How the weights are updated.
    pub optimizer: OptimizerOptions,
    /// What the optimizer makes small.
    pub loss: Loss,
    /// How the learning rate moves.
    pub schedule: Schedule,
    /// Decay of the average of the weights; `None` without one.
    pub ema_decay: Option<f64>,
    /// Whether the network learns standardised ages instead of years.
    pub standardise_targets: bool,
    /// Random changes of training images.
    pub augmentation: Augmentation,
    /// Whether BatchNorms of trained parts keep their statistics.
    pub freeze_batch_norm: bool,
    /// The figure that chooses the best epoch.
    pub monitor: Metric,
    /// The figure that ends the training, and the value that is good enough.
    pub target: Option<(Metric, f64)>,
    /// Validations without improvement before stopping; 0 never stops.
    pub patience: u32,
    /// Least fall of the monitored figure that counts, in its unit.
    pub min_delta: f64,
    /// Seed of everything random.
    pub seed: u64,
    /// Whether the new version becomes live.
    pub promote: Promotion,
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
    /// Starts in a row without progress that are tried again; `None` for the server's setting.
    pub max_restarts: Option<u32>,
    /// Whether a want of memory halves the batch instead of ending the training.
    pub reduce_batch_on_oom: bool,
    /// Longest time between two full checkpoints.
    pub checkpoint_interval: Duration,
}

/// Up to this side of the network's input, in pixels, layer4 has one value an image and channel, whose variance is zero.
pub const SINGLE_VALUE_SIZE: u32 = 32;

impl Spec {
    /// Checks a request's spec and fills in the defaults.
    ///
    /// # Errors
    /// All violations at once.
    pub fn resolve(spec: Option<&v1::TrainingSpec>) -> Result<Self, Vec<Violation>> {
        let mut check = Check::default();
        let Some(spec) = spec else {
            return Err(vec![Violation {
                field: "spec".to_owned(),
                description: "is required; set at least spec.dataset.path".to_owned(),
            }]);
        };
        let recipe = check.recipe(spec.recipe);
        let spec = &recipe.fill(spec);
        let early_stopping = spec.early_stopping.unwrap_or_default();
        let (dataset, init) = (
            DatasetSpec::read(spec.dataset.as_ref(), "spec.dataset.", &mut check),
            check.init(spec.init.as_ref()),
        );
        let trained = check.trained(&spec.trainable);
        // The head of the starter has learned ages, which a new bias would throw away.
        let head_bias = match init {
            Init::Starter => v1::HeadBias::Keep,
            Init::ImageNet | Init::Path { .. } | Init::Random => v1::HeadBias::MeanAge,
        };
        // The starter knows faces at its own size; its layers that stay frozen cannot learn another one.
        let own_size = match init {
            Init::Starter => starter::manifest().input.size,
            Init::ImageNet | Init::Path { .. } | Init::Random => 224,
        };
        let resolved = Spec {
            recipe,
            dataset,
            init,
            trained,
            max_epochs: check.max_epochs("spec.max_epochs", spec.max_epochs),
            batch_size: check.integer("spec.batch_size", spec.batch_size, 32, 1..=4_096) as usize,
            input_size: check.integer("spec.input_size", spec.input_size, own_size, 32..=1_024),
            optimizer: check.optimizer(spec.optimizer.as_ref(), trained),
            loss: check.loss(spec.loss.as_ref()),
            schedule: check.schedule(spec.schedule.as_ref()),
            ema_decay: check.ema_decay(spec.ema_decay),
            standardise_targets: check.choice(
                "spec.target_scale",
                spec.target_scale,
                v1::TargetScale::Years,
            ) == v1::TargetScale::Standardised,
            augmentation: check.augmentation(spec.augmentation.as_ref()),
            freeze_batch_norm: check.choice(
                "spec.batch_norm",
                spec.batch_norm,
                v1::BatchNormPolicy::Update,
            ) == v1::BatchNormPolicy::Frozen,
            monitor: check.metric("spec.monitor", spec.monitor, Metric::ValLoss),
            target: check.target(spec.target.as_ref()),
            patience: check.patience("spec.early_stopping.patience", early_stopping.patience),
            min_delta: check.number(
                "spec.early_stopping.min_delta",
                early_stopping.min_delta,
                0.0,
                Range::NOT_NEGATIVE,
            ),
            seed: spec.seed.unwrap_or(DEFAULT_SEED),
            promote: check.promote(spec.promote),
            mean_age_bias: check.choice("spec.head_bias", spec.head_bias, head_bias)
                == v1::HeadBias::MeanAge,
            max_duration: check.max_duration(spec.max_duration.as_ref()),
            feature_cache: check.feature_cache(spec.feature_cache),
            cache_budget: spec.cache_budget_bytes,
            precision: check.precision(spec.precision),
            max_restarts: check.max_restarts(spec.restart_policy.as_ref()),
            reduce_batch_on_oom: check.choice(
                "spec.on_oom",
                spec.on_oom,
                v1::OnOutOfMemory::ReduceBatch,
            ) == v1::OnOutOfMemory::ReduceBatch,
            checkpoint_interval: check.checkpoint_interval(spec.checkpoint_interval.as_ref()),
        };
        if resolved.batch_size == 1
            && resolved.input_size <= SINGLE_VALUE_SIZE
            && !resolved.freeze_batch_norm
        {
            check.refuse(
                "spec.batch_size",
                format!(
                    "1 leaves a BatchNorm of layer4 a single value at input_size {}; take 2 or more, or a larger input",
                    resolved.input_size
                ),
            );
        }
        check.finish(resolved)
    }
}
