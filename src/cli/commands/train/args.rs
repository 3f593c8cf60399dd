//! Flags of `visage train`. Enums of the API are kept as their numbers, 0 if not given.

use std::time::Duration;

use crate::cli::args::{
    api_enum,
    dataset_args::{DatasetArg, ReadingArgs},
    initial_weights::InitialWeights,
    label::parse_label,
    spec_field::Assignment,
};

const EXAMPLES: &str = "\
Examples:
  visage train faces/ --recipe fast                  a first model within minutes
  visage train faces/ --epochs 10
  visage train faces/ --recipe best --batch-size 64
  visage train faces.csv --init RANDOM --trainable ALL --lr 1e-3 --patience 5
  visage train faces/ --init live                    continue from the live version
  visage train faces/ --init weights/resnet18.pth --validate-only
  visage train faces/ --detach --json | jq -r .name

The defaults are those of the recipe `reference`, which needs ImageNet's weights
from a file or a download; `--recipe fast` and `--init STARTER` need neither.
Ctrl-C leaves the training running.
The exit code is 0 only if the training succeeded.";

#[derive(Debug, clap::Args)]
#[command(
    after_help = EXAMPLES,
    override_usage = "visage train [OPTIONS] <DATASET>",
    allow_negative_numbers = true
)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(super) dataset: DatasetArg,
    /// Fraction of the images for validation, 0 to 0.9 [default: 0.1]
    #[arg(long, value_name = "SHARE", help_heading = "Data")]
    pub(super) validation_fraction: Option<f64>,
    /// Fraction of the images for the final test, 0 to 0.9 [default: 0.1]
    #[arg(long, value_name = "SHARE", help_heading = "Data")]
    pub(super) test_fraction: Option<f64>,
    /// Lowest accepted age in years [default: 0]
    #[arg(long, value_name = "YEARS", help_heading = "Data")]
    pub(super) min_age: Option<f64>,
    /// Highest accepted age in years [default: 120]
    #[arg(long, value_name = "YEARS", help_heading = "Data")]
    pub(super) max_age: Option<f64>,
    /// Fraction of unusable files above which the training fails, 0 to 1 [default: 0.2]
    #[arg(long, value_name = "SHARE", help_heading = "Data")]
    pub(super) max_reject_share: Option<f64>,
    /// Images that stay in the same split: `exact`, byte-identical ones; `near`, also similar ones
    /// [default: exact]
    #[arg(
        long,
        value_name = "KIND",
        value_parser = api_enum::parser("SplitGrouping"),
        help_heading = "Data"
    )]
    pub(super) split_grouping: Option<i32>,
    /// Defaults of all other settings: `reference`, the defaults shown here; `best`, the lowest
    /// error; `fast`, a first model within minutes [default: reference]
    #[arg(
        long,
        value_name = "RECIPE",
        value_parser = api_enum::parser("Recipe"),
        help_heading = "Model"
    )]
    pub(super) recipe: Option<i32>,
    /// Initial weights: IMAGENET1K_V1, STARTER (the built-in face model), RANDOM, a model version
    /// (`live`, `4` or `models/MODEL/versions/VERSION`), or a .pth or .safetensors file on the
    /// server's disk [default: IMAGENET1K_V1]
    #[arg(
        long,
        value_name = "WEIGHTS",
        value_parser = InitialWeights::parse,
        help_heading = "Model"
    )]
    pub(super) init: Option<InitialWeights>,
    /// Key of the network in an --init file that holds several, such as `model_ema` or
    /// `state_dict.module.encoder_q`
    #[arg(long, value_name = "KEY", requires = "init", help_heading = "Model")]
    pub(super) init_key: Option<String>,
    /// Trainable parameters by name prefix, such as `layer4,fc` or `ALL` [default: layer4,fc]
    #[arg(
        long,
        value_name = "PREFIXES",
        value_delimiter = ',',
        help_heading = "Model"
    )]
    pub(super) trainable: Vec<String>,
    /// Width and height of the network input in pixels, 32 to 1024 [default: 224; with STARTER or
    /// a file of a Visage model, that of the model]
    #[arg(long, value_name = "PIXELS", help_heading = "Model")]
    pub(super) input_size: Option<u32>,
    /// Initial bias of the last layer [default: mean-age; with STARTER or a file of a Visage
    /// model, keep]
    #[arg(
        long,
        value_name = "BIAS",
        value_parser = api_enum::parser("HeadBias"),
        help_heading = "Model"
    )]
    pub(super) head_bias: Option<i32>,
    /// Epochs, 1 to 10000 [default: 10]
    #[arg(long, value_name = "N", help_heading = "Training")]
    pub(super) epochs: Option<u32>,
    /// Images per step, 1 to 4096 [default: 32]
    #[arg(long, value_name = "N", help_heading = "Training")]
    pub(super) batch_size: Option<u32>,
    /// Shards of each batch, a power of two up to 64: the same result for any number of processes
    /// [default: 1]
    #[arg(long, value_name = "N", help_heading = "Training")]
    pub(super) shards: Option<u32>,
    /// Optimizer [default: adam]
    #[arg(
        long,
        value_name = "RULE",
        value_parser = api_enum::parser("OptimizerKind"),
        help_heading = "Training"
    )]
    pub(super) optimizer: Option<i32>,
    /// Learning rate [default: 1e-4]
    #[arg(long, value_name = "X", help_heading = "Training")]
    pub(super) lr: Option<f64>,
    /// Learning rate schedule [default: constant]
    #[arg(
        long,
        value_name = "COURSE",
        value_parser = api_enum::parser("ScheduleKind"),
        help_heading = "Training"
    )]
    pub(super) schedule: Option<i32>,
    /// Epochs in which the learning rate rises from near 0 [default: 0]
    #[arg(long, value_name = "N", help_heading = "Training")]
    pub(super) warmup_epochs: Option<f64>,
    /// Loss function [default: mse]
    #[arg(
        long,
        value_name = "LOSS",
        value_parser = api_enum::parser("LossKind"),
        help_heading = "Training"
    )]
    pub(super) loss: Option<i32>,
    /// Mirror a random half of the training images
    #[arg(long, help_heading = "Training")]
    pub(super) flip: bool,
    /// Mean absolute error on the validation images, in years, at which the training stops
    #[arg(long, value_name = "YEARS", help_heading = "Training")]
    pub(super) target_mae: Option<f64>,
    /// Decay rate of Adam's first moment [default: 0.9]
    #[arg(long, value_name = "X", help_heading = "Training")]
    pub(super) beta1: Option<f64>,
    /// Decay rate of Adam's second moment [default: 0.999]
    #[arg(long, value_name = "X", help_heading = "Training")]
    pub(super) beta2: Option<f64>,
    /// Term that Adam adds to the denominator [default: 1e-8]
    #[arg(long, value_name = "X", help_heading = "Training")]
    pub(super) epsilon: Option<f64>,
    /// L2 penalty; with adamw, the decoupled weight decay [default: 0, with adamw 0.01]
    #[arg(long, value_name = "X", help_heading = "Training")]
    pub(super) weight_decay: Option<f64>,
    /// Epochs without improvement before the training stops early; 0 disables early stopping
    /// [default: 0]
    #[arg(long, value_name = "N", help_heading = "Training")]
    pub(super) patience: Option<u32>,
    /// Decrease of the validation loss that counts as an improvement, in squared years
    /// [default: 0]
    #[arg(long, value_name = "X", help_heading = "Training")]
    pub(super) min_delta: Option<f64>,
    /// Seed of the split, the order of images and random weights [default: 42]
    #[arg(long, value_name = "N", help_heading = "Training")]
    pub(super) seed: Option<u64>,
    /// Maximum duration of the training, such as `1h` or `30m`
    #[arg(
        long,
        value_name = "TIME",
        value_parser = humantime::parse_duration,
        help_heading = "Training"
    )]
    pub(super) max_duration: Option<Duration>,
    /// Location of the cache for the frozen layers' features, which saves most of the work from
    /// the second epoch on [default: auto]
    #[arg(
        long,
        value_name = "PLACE",
        value_parser = api_enum::parser("FeatureCache"),
        help_heading = "Training"
    )]
    pub(super) feature_cache: Option<i32>,
    /// Maximum size of the feature cache in bytes [default: the available space]
    #[arg(long, value_name = "N", help_heading = "Training")]
    pub(super) cache_budget_bytes: Option<u64>,
    /// Precision of the convolutions [default: auto, bf16 on devices that compute it fast]
    #[arg(
        long,
        value_name = "FORMAT",
        value_parser = api_enum::parser("Precision"),
        help_heading = "Training"
    )]
    pub(super) precision: Option<i32>,
    /// Any field of TrainingSpec by its name in the API, such as `optimizer.beta1=0.8`; overrides
    /// other flags; repeatable
    #[arg(
        long = "set",
        value_name = "FIELD=VALUE",
        value_parser = Assignment::parse,
        help_heading = "Training"
    )]
    pub(super) set: Vec<Assignment>,
    /// Create no model version; `visage models register ID` creates one from the best checkpoint
    /// later
    #[arg(long, help_heading = "Training")]
    pub(super) no_version: bool,
    /// When to promote the new model version to live [default: if-better]
    #[arg(
        long,
        value_name = "WHEN",
        value_parser = api_enum::parser("Promote"),
        help_heading = "Training"
    )]
    pub(super) promote: Option<i32>,
    /// Id of the training, such as `faces-2` [default: chosen by the server]
    #[arg(long, value_name = "ID")]
    pub(super) id: Option<String>,
    /// Display name
    #[arg(long, alias = "name", value_name = "TEXT")]
    pub(super) display_name: Option<String>,
    /// Label for scripts; repeatable
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    pub(super) labels: Vec<(String, String)>,
    /// Return as soon as the training is queued
    #[arg(long, conflicts_with = "validate_only")]
    pub(super) detach: bool,
    /// List all fields for --set with their types, without starting a training
    #[arg(long, conflicts_with_all = ["detach", "validate_only"])]
    pub(super) fields: bool,
    /// Run all checks, including the scan of the dataset, without starting the training
    #[arg(long)]
    pub(super) validate_only: bool,
    // Last, because its heading applies to all options after it.
    #[command(flatten, next_help_heading = "Data")]
    pub(super) reading: ReadingArgs,
}
