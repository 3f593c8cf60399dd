//! Subcommands and flags of `visage trainings`.

use crate::{
    cli::{
        args::{label::parse_label, watch_flag::WatchFlag},
        commands::trainings::download,
    },
    proto::v1::TrainingState,
};

const EXAMPLES: &str = "\
Examples:
  visage trainings list --state running --state queued
  visage trainings list --label sweep=rates
  visage trainings list --watch            refresh every 2 seconds until Ctrl-C
  visage trainings get faces-2
  visage trainings get faces-2 --watch=10s  until it has ended
  visage trainings compare faces-1 faces-2  different settings and their metrics
  visage trainings stop faces-2            stop early, keep the best checkpoint
  visage trainings pause faces-2           release the device; `resume` continues
  visage trainings resume faces-2          back into the queue
  visage trainings update faces-2 --epochs 20
  visage trainings cancel faces-2 --force  discard it, kill its process
  visage trainings delete faces-2          with its events and unused checkpoints
  visage trainings checkpoints faces-2
  visage trainings download faces-2 --output resnet18.safetensors";

#[derive(Debug, clap::Subcommand)]
#[command(after_help = EXAMPLES)]
pub(crate) enum Command {
    /// List trainings, newest first
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Show one training
    Get {
        #[command(flatten)]
        training: TrainingArg,
        #[command(flatten)]
        watch: WatchFlag,
    },
    /// Show the settings in which trainings differ, and their metrics
    Compare {
        /// `ID` or `trainings/ID`; two or more
        #[arg(required = true, value_name = "ID")]
        trainings: Vec<String>,
    },
    /// Stop a training early and keep its best checkpoint
    Stop(TrainingArg),
    /// Release the device; the training keeps its progress
    Pause(TrainingArg),
    /// Put a paused training back into the queue
    Resume(TrainingArg),
    /// Change a training from its next epoch on
    Update {
        #[command(flatten)]
        training: TrainingArg,
        /// Epochs
        #[arg(long, value_name = "N")]
        epochs: Option<u32>,
        /// Epochs without improvement before the training stops early; 0 disables early stopping
        #[arg(long, value_name = "N")]
        patience: Option<u32>,
        /// Learning rate
        #[arg(long, value_name = "X")]
        lr: Option<f64>,
    },
    /// Discard a training
    Cancel {
        #[command(flatten)]
        training: TrainingArg,
        /// Kill its process instead of stopping it
        #[arg(long)]
        force: bool,
    },
    /// Delete an ended training with its events and unused checkpoints
    #[command(visible_alias = "rm")]
    Delete(TrainingArg),
    /// List the checkpoints of a training, newest first
    Checkpoints {
        #[command(flatten)]
        training: TrainingArg,
        /// Maximum number of checkpoints
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: usize,
    },
    /// Download a file of a checkpoint and verify it
    Download(download::Args),
}

#[derive(Debug, clap::Args)]
pub(crate) struct TrainingArg {
    /// `ID` or `trainings/ID`
    pub(super) id: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {
    /// Maximum number of trainings
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub(super) limit: usize,
    /// Only trainings in this state, such as `running`; repeatable
    #[arg(long = "state", value_name = "STATE", value_parser = parse_state)]
    pub(super) states: Vec<TrainingState>,
    /// Only trainings with this label; repeatable, all labels must match
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    pub(super) labels: Vec<(String, String)>,
    #[command(flatten)]
    pub(super) watch: WatchFlag,
}

fn parse_state(text: &str) -> Result<TrainingState, String> {
    let name = format!("TRAINING_STATE_{}", text.to_ascii_uppercase());
    match TrainingState::from_str_name(&name) {
        Some(state) if state != TrainingState::Unspecified => Ok(state),
        _ => Err("expected queued, preparing, running, pausing, paused, stopping, cancelling, succeeded, failed or cancelled".to_owned()),
    }
}
