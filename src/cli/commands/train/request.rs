//! The StartTraining request of `visage train`.

use std::time::Duration;

use uuid::Uuid;

use crate::{
    cli::{args::dataset_args::dataset_spec, commands::train::Args, error::Error},
    proto::v1::{
        AugmentationSpec, DatasetSpec, EarlyStoppingSpec, LossSpec, Metric, OptimizerSpec,
        ScheduleSpec, StartTrainingRequest, TargetSpec, TrainingSpec,
    },
};

/// Deadline of StartTraining.
pub(crate) const START_TIMEOUT: Duration = Duration::from_secs(60);

pub(super) fn start_request(args: Args) -> Result<StartTrainingRequest, Error> {
    let optimizer = OptimizerSpec {
        kind: args.optimizer.unwrap_or_default(),
        learning_rate: args.lr,
        beta1: args.beta1,
        beta2: args.beta2,
        epsilon: args.epsilon,
        weight_decay: args.weight_decay,
        ..OptimizerSpec::default()
    };
    let early_stopping = EarlyStoppingSpec {
        patience: args.patience,
        min_delta: args.min_delta,
    };
    let schedule = ScheduleSpec {
        kind: args.schedule.unwrap_or_default(),
        warmup_epochs: args.warmup_epochs,
        ..ScheduleSpec::default()
    };
    let max_duration = args.max_duration.map(prost_types::Duration::try_from);
    let max_duration = max_duration
        .transpose()
        .map_err(|_| Error::Usage("--max-duration is too long".to_owned()))?;
    let mut spec = TrainingSpec {
        dataset: Some(DatasetSpec {
            validation_fraction: args.validation_fraction,
            test_fraction: args.test_fraction,
            min_age: args.min_age,
            max_age: args.max_age,
            max_reject_share: args.max_reject_share,
            split_grouping: args.split_grouping.unwrap_or_default(),
            ..dataset_spec(args.dataset.required()?, &args.reading)?
        }),
        init: args.init.map(|init| init.spec(args.init_key)).transpose()?,
        trainable: args.trainable,
        max_epochs: args.epochs,
        batch_size: args.batch_size,
        shards: args.shards,
        input_size: args.input_size,
        optimizer: Some(optimizer),
        early_stopping: Some(early_stopping),
        seed: args.seed,
        promote: args.promote.unwrap_or_default(),
        create_version: args.no_version.then_some(false),
        head_bias: args.head_bias.unwrap_or_default(),
        max_duration,
        feature_cache: args.feature_cache.unwrap_or_default(),
        cache_budget_bytes: args.cache_budget_bytes,
        precision: args.precision.unwrap_or_default(),
        loss: args.loss.map(|kind| LossSpec { kind, beta: None }),
        schedule: Some(schedule),
        augmentation: args.flip.then(|| AugmentationSpec {
            horizontal_flip: Some(true),
            ..AugmentationSpec::default()
        }),
        recipe: args.recipe.unwrap_or_default(),
        target: args.target_mae.map(|value| TargetSpec {
            metric: Metric::ValMae.into(),
            value,
        }),
        ..TrainingSpec::default()
    };
    for assignment in &args.set {
        assignment.apply(&mut spec);
    }
    Ok(StartTrainingRequest {
        spec: Some(spec),
        request_id: Uuid::new_v4().to_string(),
        validate_only: args.validate_only,
        training_id: args.id.unwrap_or_default(),
        display_name: args.display_name.unwrap_or_default(),
        labels: args.labels.into_iter().collect(),
    })
}
