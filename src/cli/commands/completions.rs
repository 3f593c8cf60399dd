//! `visage completions`: a completion script for a shell.

use clap::{Command, ValueEnum};
use clap_complete::{Shell, generate};

use crate::cli::{
    context::{Context, Outcome},
    error::Error,
};

const EXAMPLES: &str = "\
Examples:
  source <(visage completions bash)
  visage completions fish > ~/.config/fish/completions/visage.fish";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Name of the shell
    shell: ShellArg,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ShellArg {
    Bash,
    Zsh,
    Fish,
}

pub(crate) fn run(args: Args, mut program: Command, context: &Context) -> Result<Outcome, Error> {
    let shell = match args.shell {
        ShellArg::Bash => Shell::Bash,
        ShellArg::Zsh => Shell::Zsh,
        ShellArg::Fish => Shell::Fish,
    };
    let mut script = Vec::new();
    generate(shell, &mut program, "visage", &mut script);
    context
        .output
        .line(String::from_utf8_lossy(&script).trim_end())?;
    Ok(Outcome::Done)
}
