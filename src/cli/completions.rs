//! `visage completions`: what the shell needs to complete our commands.

use clap::ValueEnum;
use clap_complete::{Shell, generate};

use super::{Context, Error, Outcome, command};

const EXAMPLES: &str = "\
Examples:
  source <(visage completions bash)
  visage completions fish > ~/.config/fish/completions/visage.fish";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The shell
    shell: ShellArg,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ShellArg {
    Bash,
    Zsh,
    Fish,
}

pub(super) fn run(args: Args, context: &Context) -> Result<Outcome, Error> {
    let shell = match args.shell {
        ShellArg::Bash => Shell::Bash,
        ShellArg::Zsh => Shell::Zsh,
        ShellArg::Fish => Shell::Fish,
    };
    let mut script = Vec::new();
    generate(shell, &mut command(), "visage", &mut script);
    context
        .output
        .line(String::from_utf8_lossy(&script).trim_end())?;
    Ok(Outcome::Done)
}
