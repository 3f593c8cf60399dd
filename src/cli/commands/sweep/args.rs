//! Flags of `visage sweep`.

use crate::cli::{
    args::{
        dataset_args::{DatasetArg, ReadingArgs},
        spec_field::Assignment,
    },
    commands::sweep::plan::{Axis, Range},
};

const EXAMPLES: &str = "\
Examples:
  visage sweep faces/ --grid optimizer.learning_rate=1e-4,3e-4,1e-3
  visage sweep faces/ --grid batch_size=16,32 --grid 'trainable=[\"layer4\"],ALL'
  visage sweep faces/ --random 20 --range optimizer.learning_rate=1e-5..1e-2:log
  visage sweep faces/ --grid batch_size=16,32 --resume sweep-1a2b3c4d

Fields have the names of TrainingSpec in the API; `visage train --fields` lists
them. Only the best run becomes a model version, which is not promoted; with
--keep-versions all do, and `--set promote=...` applies to them.
Ctrl-C leaves started runs to the server; the same command with --resume
continues the sweep.
The exit code is 0 only if all runs succeeded.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, override_usage = "visage sweep [OPTIONS] <DATASET>")]
pub(crate) struct Args {
    #[command(flatten)]
    pub(super) dataset: DatasetArg,
    #[command(flatten)]
    pub(super) reading: ReadingArgs,
    /// Values of a field; repeatable, all combinations are trained
    #[arg(long = "grid", value_name = "FIELD=VALUE,...", value_parser = Axis::parse)]
    pub(super) axes: Vec<Axis>,
    /// Number of randomly drawn combinations, instead of all
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) random: Option<u32>,
    /// Range of a random number; `:log` draws uniformly on a logarithmic scale
    #[arg(
        long = "range",
        value_name = "FIELD=LOW..HIGH[:log]",
        value_parser = Range::parse,
        requires = "random"
    )]
    pub(super) ranges: Vec<Range>,
    /// Seed of the random combinations
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(super) seed: u64,
    /// Field with the same value in all runs, such as `max_epochs=3`; repeatable
    #[arg(long = "set", value_name = "FIELD=VALUE", value_parser = Assignment::parse)]
    pub(super) set: Vec<Assignment>,
    /// Maximum number of runs that are queued or running at the same time
    #[arg(
        long,
        value_name = "N",
        default_value_t = 4,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub(super) queued: u32,
    /// Create a model version of every run, instead of the best run only
    #[arg(long)]
    pub(super) keep_versions: bool,
    /// Id of the sweep; its trainings are ID-1, ID-2 and so on [default: random]
    #[arg(long, value_name = "ID", conflicts_with = "resume")]
    pub(super) id: Option<String>,
    /// Continue this sweep; existing trainings are not started again
    #[arg(long, value_name = "ID")]
    pub(super) resume: Option<String>,
}
