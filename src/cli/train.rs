//! `visage train`: StartTraining, then follow.

use std::{path::PathBuf, time::Duration};

use clap::ValueEnum;
use uuid::Uuid;

use crate::proto::v1::{
    AugmentationSpec, DatasetSpec, EarlyStoppingSpec, FeatureCache, HeadBias, InitKind, InitSpec,
    LossKind, LossSpec, Metric, OptimizerKind, OptimizerSpec, Precision, Promote, Recipe,
    ScheduleKind, ScheduleSpec, SplitGrouping, StartTrainingRequest, StreamEpochMetricsRequest,
    TargetSpec, TrainingSpec,
};

use super::{
    Context, Error, Outcome, absolute,
    client::request_within,
    dataset_spec,
    fields::Assignment,
    json, names,
    observe::{ctrl_c, observe},
    reading::ReadingArgs,
    report,
};

/// Longest wait for StartTraining; with `--validate-only` the server scans the whole dataset first.
pub(super) const START_TIMEOUT: Duration = Duration::from_secs(60);
const VALIDATE_TIMEOUT: Duration = Duration::from_secs(1800);

const EXAMPLES: &str = "\
Examples:
  visage train --dataset faces/ --epochs 10
  visage train --dataset faces/ --recipe best --batch-size 64
  visage train --dataset faces.csv --init RANDOM --trainable ALL --lr 1e-3 --patience 5
  visage train --dataset faces/ --init weights/resnet18.pth --validate-only
  visage train --dataset faces/ --detach --json | jq -r .name

The defaults are those of the recipe `reference`. Ctrl-C leaves the training running. The exit code is 0 only when the training succeeded.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, allow_negative_numbers = true)]
pub(super) struct Args {
    /// `datasets/ID`, or a directory of images whose names begin with the age, or a CSV/TSV file with the columns `path` and `age`; on the server's disk
    #[arg(long, value_name = "PATH", help_heading = "Data")]
    dataset: PathBuf,
    /// Share of the images for validation, 0 to 0.9 [default: 0.1]
    #[arg(long, value_name = "SHARE", help_heading = "Data")]
    validation_fraction: Option<f64>,
    /// Share of the images for the final test, 0 to 0.9 [default: 0.1]
    #[arg(long, value_name = "SHARE", help_heading = "Data")]
    test_fraction: Option<f64>,
    /// Youngest accepted age in years [default: 0]
    #[arg(long, value_name = "YEARS", help_heading = "Data")]
    min_age: Option<f64>,
    /// Oldest accepted age in years [default: 120]
    #[arg(long, value_name = "YEARS", help_heading = "Data")]
    max_age: Option<f64>,
    /// Share of unusable files above which the training fails, 0 to 1 [default: 0.2]
    #[arg(long, value_name = "SHARE", help_heading = "Data")]
    max_reject_share: Option<f64>,
    /// Which images stay in one part of a split that the server makes [default: exact]
    #[arg(long, value_name = "KIND", help_heading = "Data")]
    split_grouping: Option<SplitGroupingArg>,
    /// Values for everything that is not given: `reference` has the defaults told here, `best` takes its time for the lowest error, `fast` makes a first model
    /// within minutes [default: reference]
    #[arg(long, value_name = "RECIPE", help_heading = "Model")]
    recipe: Option<RecipeArg>,
    /// Weights to begin with: IMAGENET1K_V1, STARTER (the face model that is part of the server's program), RANDOM, or a .pth or .safetensors file on the server's disk [default: IMAGENET1K_V1]
    #[arg(long, value_name = "WEIGHTS", help_heading = "Model")]
    init: Option<String>,
    /// Place of the network within a file of --init that has several, such as `model_ema` or `state_dict.module.encoder_q`
    #[arg(long, value_name = "KEY", requires = "init", help_heading = "Model")]
    init_key: Option<String>,
    /// Parts that are trained, such as `layer4,fc` or `ALL` [default: layer4,fc]
    #[arg(
        long,
        value_name = "PREFIXES",
        value_delimiter = ',',
        help_heading = "Model"
    )]
    trainable: Vec<String>,
    /// Side of the square network input in pixels, 32 to 1024 [default: 224; with STARTER or a file of a Visage model, its own]
    #[arg(long, value_name = "PIXELS", help_heading = "Model")]
    input_size: Option<u32>,
    /// Bias of the last layer before the first step [default: mean-age; with STARTER or a file of a Visage model, keep]
    #[arg(long, value_name = "BIAS", help_heading = "Model")]
    head_bias: Option<HeadBiasArg>,
    /// Passes over the training images, 1 to 10000 [default: 10]
    #[arg(long, value_name = "N", help_heading = "Training")]
    epochs: Option<u32>,
    /// Images in a step, 1 to 4096 [default: 32]
    #[arg(long, value_name = "N", help_heading = "Training")]
    batch_size: Option<u32>,
    /// How weights are updated [default: adam]
    #[arg(long, value_name = "RULE", help_heading = "Training")]
    optimizer: Option<OptimizerArg>,
    /// Step size [default: 1e-4]
    #[arg(long, value_name = "X", help_heading = "Training")]
    lr: Option<f64>,
    /// How the step size moves [default: constant]
    #[arg(long, value_name = "COURSE", help_heading = "Training")]
    schedule: Option<ScheduleArg>,
    /// Epochs over which the step size rises from near 0 [default: 0]
    #[arg(long, value_name = "N", help_heading = "Training")]
    warmup_epochs: Option<f64>,
    /// What is made small [default: mse]
    #[arg(long, value_name = "LOSS", help_heading = "Training")]
    loss: Option<LossArg>,
    /// Mirror half of the training images
    #[arg(long, help_heading = "Training")]
    flip: bool,
    /// End when the mean absolute error on the validation images is at most so many years
    #[arg(long, value_name = "YEARS", help_heading = "Training")]
    target_mae: Option<f64>,
    /// Adam's decay of the first moment [default: 0.9]
    #[arg(long, value_name = "X", help_heading = "Training")]
    beta1: Option<f64>,
    /// Adam's decay of the second moment [default: 0.999]
    #[arg(long, value_name = "X", help_heading = "Training")]
    beta2: Option<f64>,
    /// What Adam adds to the denominator [default: 1e-8]
    #[arg(long, value_name = "X", help_heading = "Training")]
    epsilon: Option<f64>,
    /// L2 penalty, or with adamw the share that each step takes away, times the step size [default: 0, with adamw 0.01]
    #[arg(long, value_name = "X", help_heading = "Training")]
    weight_decay: Option<f64>,
    /// Epochs without an improvement after which to stop; 0 never stops early [default: 0]
    #[arg(long, value_name = "N", help_heading = "Training")]
    patience: Option<u32>,
    /// How far the validation loss must fall to count as an improvement, in squared years [default: 0]
    #[arg(long, value_name = "X", help_heading = "Training")]
    min_delta: Option<f64>,
    /// Seed of the split, of the order of images and of random weights [default: 42]
    #[arg(long, value_name = "N", help_heading = "Training")]
    seed: Option<u64>,
    /// Longest time that the training may run, such as `1h` or `30m`
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, help_heading = "Training")]
    max_duration: Option<Duration>,
    /// Where the frozen layers' features are kept, which saves most of the work from the second epoch on [default: auto]
    #[arg(long, value_name = "PLACE", help_heading = "Training")]
    feature_cache: Option<FeatureCacheArg>,
    /// Most bytes of kept features [default: what there is room for]
    #[arg(long, value_name = "N", help_heading = "Training")]
    cache_budget_bytes: Option<u64>,
    /// Number format of the convolutions [default: auto, bf16 where the device is fast in it]
    #[arg(long, value_name = "FORMAT", help_heading = "Training")]
    precision: Option<PrecisionArg>,
    /// Set any field of TrainingSpec by its name in the API, such as `optimizer.beta1=0.8`; wins over the other flags and may be given several times
    #[arg(long = "set", value_name = "FIELD=VALUE", value_parser = Assignment::parse, help_heading = "Training")]
    set: Vec<Assignment>,
    /// Whether the new model version becomes live [default: if-better]
    #[arg(long, value_name = "WHEN", help_heading = "Training")]
    promote: Option<PromoteArg>,
    /// The training's id, such as `faces-2` [default: chosen by the server]
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// Text for people
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,
    /// A label for scripts; may be given several times
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    labels: Vec<(String, String)>,
    /// Return once the training is in the queue
    #[arg(long, conflicts_with = "validate_only")]
    detach: bool,
    /// Do every check, the scan of the dataset included, and start nothing
    #[arg(long)]
    validate_only: bool,
    // Last: the heading would be that of all options behind it.
    #[command(flatten, next_help_heading = "Data")]
    reading: ReadingArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum RecipeArg {
    Reference,
    Best,
    Fast,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum PromoteArg {
    Always,
    IfBetter,
    Never,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum SplitGroupingArg {
    /// Byte-identical ones
    Exact,
    /// Also those that look the same
    Near,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum FeatureCacheArg {
    Auto,
    Off,
    Memory,
    Disk,
    Device,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum PrecisionArg {
    Auto,
    F32,
    Bf16,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum OptimizerArg {
    Adam,
    Adamw,
    Sgd,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ScheduleArg {
    Constant,
    Cosine,
    Plateau,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LossArg {
    Mse,
    SmoothL1,
    L1,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum HeadBiasArg {
    MeanAge,
    Keep,
}

pub(super) async fn run(args: Args, context: &mut Context) -> Result<Outcome, Error> {
    let (detach, validate_only) = (args.detach, args.validate_only);
    let start = start_request(args)?;
    let client = context.connect().await?;
    let timeout = match validate_only {
        true => VALIDATE_TIMEOUT,
        false => START_TIMEOUT,
    };
    // The request id makes a repeated call harmless.
    let response = client
        .repeat(&context.patience, || {
            let call = request_within(start.clone(), timeout);
            let mut trainings = client.trainings();
            async move { trainings.start_training(call).await }
        })
        .await?;
    if validate_only {
        if context.output.is_json() {
            context
                .output
                .object(&json::value("StartTrainingResponse", &response))?;
            return Ok(Outcome::Done);
        }
        let training = response.training.unwrap_or_default();
        for line in training.dataset.iter().flat_map(report::dataset_lines) {
            context.output.line(&line)?;
        }
        if !training.init_source.is_empty() {
            let line = format!("Initial weights: {}", training.init_source);
            context.output.line(&line)?;
        }
        if let Some(estimate) = &response.estimate {
            context.output.line(&report::estimate_line(estimate))?;
        }
        context
            .output
            .line("The training can be started; nothing was changed.")?;
        return Ok(Outcome::Done);
    }
    let training = response
        .training
        .ok_or_else(|| Error::Contract("StartTraining returned no training".to_owned()))?;
    if detach {
        match context.output.is_json() {
            true => context.output.object(&json::value("Training", &training))?,
            false => context.output.line(&training.name)?,
        }
        let id = names::training_id(&training.name);
        context
            .output
            .note(&format!("Follow it with `visage watch {id}`."));
        return Ok(Outcome::Done);
    }
    context.output.note(&format!("Started {}.", training.name));
    let stream = StreamEpochMetricsRequest {
        name: training.name,
        ..StreamEpochMetricsRequest::default()
    };
    observe(context, client, stream, ctrl_c()).await
}

fn start_request(args: Args) -> Result<StartTrainingRequest, Error> {
    let optimizer = OptimizerSpec {
        learning_rate: args.lr,
        beta1: args.beta1,
        beta2: args.beta2,
        epsilon: args.epsilon,
        weight_decay: args.weight_decay,
        kind: match args.optimizer {
            None => OptimizerKind::Unspecified,
            Some(OptimizerArg::Adam) => OptimizerKind::Adam,
            Some(OptimizerArg::Adamw) => OptimizerKind::Adamw,
            Some(OptimizerArg::Sgd) => OptimizerKind::Sgd,
        }
        .into(),
        ..OptimizerSpec::default()
    };
    let early_stopping = EarlyStoppingSpec {
        patience: args.patience,
        min_delta: args.min_delta,
    };
    let max_duration =
        match args.max_duration {
            None => None,
            Some(duration) => Some(prost_types::Duration::try_from(duration).map_err(|_| {
                Error::Usage("--max-duration is longer than can be told".to_owned())
            })?),
        };
    let mut spec = TrainingSpec {
        dataset: Some(DatasetSpec {
            validation_fraction: args.validation_fraction,
            test_fraction: args.test_fraction,
            min_age: args.min_age,
            max_age: args.max_age,
            max_reject_share: args.max_reject_share,
            split_grouping: split_grouping(args.split_grouping),
            ..dataset_spec(args.dataset, &args.reading)?
        }),
        init: args
            .init
            .map(|init| init_spec(init, args.init_key))
            .transpose()?,
        trainable: args.trainable,
        max_epochs: args.epochs,
        batch_size: args.batch_size,
        input_size: args.input_size,
        optimizer: Some(optimizer),
        early_stopping: Some(early_stopping),
        seed: args.seed,
        promote: match args.promote {
            None => Promote::Unspecified,
            Some(PromoteArg::Always) => Promote::Always,
            Some(PromoteArg::IfBetter) => Promote::IfBetter,
            Some(PromoteArg::Never) => Promote::Never,
        }
        .into(),
        head_bias: match args.head_bias {
            None => HeadBias::Unspecified,
            Some(HeadBiasArg::MeanAge) => HeadBias::MeanAge,
            Some(HeadBiasArg::Keep) => HeadBias::Keep,
        }
        .into(),
        max_duration,
        feature_cache: match args.feature_cache {
            None => FeatureCache::Unspecified,
            Some(FeatureCacheArg::Auto) => FeatureCache::Auto,
            Some(FeatureCacheArg::Off) => FeatureCache::Off,
            Some(FeatureCacheArg::Memory) => FeatureCache::Memory,
            Some(FeatureCacheArg::Disk) => FeatureCache::Disk,
            Some(FeatureCacheArg::Device) => FeatureCache::Device,
        }
        .into(),
        cache_budget_bytes: args.cache_budget_bytes,
        precision: match args.precision {
            None => Precision::Unspecified,
            Some(PrecisionArg::Auto) => Precision::Auto,
            Some(PrecisionArg::F32) => Precision::F32,
            Some(PrecisionArg::Bf16) => Precision::Bf16,
        }
        .into(),
        loss: args.loss.map(|loss| LossSpec {
            kind: match loss {
                LossArg::Mse => LossKind::Mse,
                LossArg::SmoothL1 => LossKind::SmoothL1,
                LossArg::L1 => LossKind::L1,
            }
            .into(),
            beta: None,
        }),
        schedule: Some(ScheduleSpec {
            kind: match args.schedule {
                None => ScheduleKind::Unspecified,
                Some(ScheduleArg::Constant) => ScheduleKind::Constant,
                Some(ScheduleArg::Cosine) => ScheduleKind::Cosine,
                Some(ScheduleArg::Plateau) => ScheduleKind::Plateau,
            }
            .into(),
            warmup_epochs: args.warmup_epochs,
            ..ScheduleSpec::default()
        }),
        augmentation: args.flip.then(|| AugmentationSpec {
            horizontal_flip: Some(true),
            ..AugmentationSpec::default()
        }),
        recipe: match args.recipe {
            None => Recipe::Unspecified,
            Some(RecipeArg::Reference) => Recipe::Reference,
            Some(RecipeArg::Best) => Recipe::Best,
            Some(RecipeArg::Fast) => Recipe::Fast,
        }
        .into(),
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
        display_name: args.name.unwrap_or_default(),
        labels: args.labels.into_iter().collect(),
    })
}

/// What a flag says, as in the API.
pub(super) fn split_grouping(given: Option<SplitGroupingArg>) -> i32 {
    match given {
        None => SplitGrouping::Unspecified,
        Some(SplitGroupingArg::Exact) => SplitGrouping::Exact,
        Some(SplitGroupingArg::Near) => SplitGrouping::Near,
    }
    .into()
}

fn init_spec(text: String, key: Option<String>) -> Result<InitSpec, Error> {
    let (kind, path) = match text.to_ascii_uppercase().as_str() {
        "IMAGENET1K_V1" => (InitKind::Imagenet1kV1, String::new()),
        "RANDOM" => (InitKind::Random, String::new()),
        "STARTER" => (InitKind::Starter, String::new()),
        _ => (InitKind::Path, absolute(PathBuf::from(text))?),
    };
    Ok(InitSpec {
        kind: kind.into(),
        path,
        key: key.unwrap_or_default(),
    })
}

fn parse_label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}
