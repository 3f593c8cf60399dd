//! Subcommands and flags of `visage models`.

use crate::cli::{
    args::{model_arg::ModelArg, watch_flag::WatchFlag},
    commands::models::export,
};

const EXAMPLES: &str = "\
Examples:
  visage models list
  visage models list --watch               refresh every 2 seconds until Ctrl-C
  visage models get live
  visage models promote 3                  serve version 3
  visage models rollback                   serve the version that was live before
  visage models delete 2                   delete the files of version 2
  visage models alias set canary 3
  visage models alias delete canary
  visage models register faces-2 --epoch 7  create a version from a checkpoint
  visage models register starter           create a version from the built-in face model
  visage models export live --format onnx    write age-N.onnx
  visage models history";

#[derive(Debug, clap::Subcommand)]
#[command(after_help = EXAMPLES)]
pub(crate) enum Command {
    /// List versions, newest first
    #[command(visible_alias = "ls")]
    List {
        #[command(flatten)]
        list: ListArgs,
        #[command(flatten)]
        watch: WatchFlag,
    },
    /// Show one version
    Get {
        /// A number, an alias, or `models/MODEL/versions/VERSION`
        version: String,
        #[command(flatten)]
        model: ModelArg,
    },
    /// Make a version live; `previous` then points to the version that was live
    Promote {
        /// A number, an alias, or `models/MODEL/versions/VERSION`
        version: String,
        #[command(flatten)]
        model: ModelArg,
    },
    /// Make the previous version live again; a second rollback undoes the first
    Rollback {
        #[command(flatten)]
        model: ModelArg,
    },
    /// Delete versions and their files; refused while an alias points to one
    #[command(visible_alias = "rm")]
    Delete {
        /// Numbers, or `models/MODEL/versions/N`
        #[arg(required = true, value_name = "VERSION")]
        versions: Vec<String>,
        #[command(flatten)]
        model: ModelArg,
    },
    /// Create a version from a checkpoint, or from the starter
    Register {
        /// `ID`, `trainings/ID` or `trainings/ID/checkpoints/EPOCH`; or `starter`, the built-in
        /// face model
        #[arg(value_name = "TRAINING")]
        source: String,
        /// Epoch of the checkpoint, or `best`
        #[arg(long, value_name = "EPOCH", default_value = "best")]
        epoch: String,
        #[command(flatten)]
        model: ModelArg,
    },
    /// Write a version to a file that other programs read
    Export(export::Args),
    /// Point an alias to a version, or remove one
    #[command(subcommand)]
    Alias(AliasCommand),
    /// List the moves of aliases, newest first
    History(ListArgs),
}

#[derive(Debug, clap::Subcommand)]
pub(crate) enum AliasCommand {
    /// Point an alias to a version; `live` is the default of predictions
    Set {
        /// Name of the alias, such as `live`
        alias: String,
        /// A number, another alias, or `models/MODEL/versions/VERSION`
        version: String,
        /// Current version of the alias, else the command fails; 0 if the alias must not exist
        #[arg(long, value_name = "N")]
        expected: Option<u64>,
        #[command(flatten)]
        model: ModelArg,
    },
    /// Remove an alias; without `live`, predictions need an explicit version
    #[command(visible_alias = "rm")]
    Delete {
        /// Name of the alias
        alias: String,
        /// Confirm the removal of `live`
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        model: ModelArg,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {
    /// Maximum number of entries
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub(super) limit: usize,
    #[command(flatten)]
    pub(super) model: ModelArg,
}
