//! Subcommands of `visage dataset`.

use crate::cli::{
    commands::dataset::{check, named, push, uploads},
    context::{Context, Outcome},
    error::Error,
};

const EXAMPLES: &str = "\
Examples:
  visage dataset push faces/ --id faces              upload from this machine
  visage dataset register /data/faces                  name a directory of the server
  visage dataset list
  visage dataset get faces                             splits, ages, and skipped files with reasons
  visage dataset delete faces
  visage dataset uploads                               interrupted uploads, to resume or delete
  visage dataset uploads list
  visage dataset uploads delete 3f0c2a54-6c1e-4a52-9b0b-0d1f4cbb8a11
  visage dataset check datasets/faces
  visage dataset check faces/
  visage dataset check faces/ --strict                 for scripts: fails if an image is in two splits
  visage dataset check faces.csv --version live          also doubtful labels according to the live version
  visage dataset check faces/ --json | jq .near.straddling_groups";

#[derive(Debug, clap::Subcommand)]
#[command(after_help = EXAMPLES)]
pub(crate) enum Command {
    /// Upload a directory or an archive of this machine as a named dataset
    Push(push::Args),
    /// Name a directory of the server, without copying it
    Register(named::RegisterArgs),
    /// List named datasets, newest first
    #[command(visible_alias = "ls")]
    List(named::ListArgs),
    /// Show one named dataset
    Get {
        /// `ID` or `datasets/ID`
        name: String,
    },
    /// Delete a named dataset; images of a registered one are kept, those of a pushed one deleted
    #[command(visible_alias = "rm")]
    Delete {
        /// `ID` or `datasets/ID`
        name: String,
    },
    /// List or delete archives that were uploaded and that no dataset uses
    Uploads(uploads::Args),
    /// Find unusable files, duplicates, leaks between splits and doubtful labels; changes nothing
    Check(check::Args),
}

pub(crate) async fn run(command: Command, context: &mut Context) -> Result<Outcome, Error> {
    match command {
        Command::Push(args) => push::run(args, context).await,
        Command::Register(args) => named::register(args, context).await,
        Command::List(args) => named::list(args, context).await,
        Command::Get { name } => named::get(&name, context).await,
        Command::Delete { name } => named::delete(&name, context).await,
        Command::Uploads(args) => uploads::run(args, context).await,
        Command::Check(args) => check::run(args, context).await,
    }
}
