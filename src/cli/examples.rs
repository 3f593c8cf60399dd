//! Each command's help shows how it is used: what its parent shows of it, unless it has examples of its own.

use clap::Command;

const TITLE: &str = "Examples:\n";

/// Gives the examples of a command on to those of its subcommands that have none.
pub(super) fn hand_down(command: Command) -> Command {
    let name = command.get_name().to_owned();
    below(command, &name)
}

fn below(command: Command, path: &str) -> Command {
    let shown = command.get_after_help().map(ToString::to_string);
    let names: Vec<String> = command
        .get_subcommands()
        .map(|subcommand| subcommand.get_name().to_owned())
        .collect();
    names.into_iter().fold(command, |command, name| {
        command.mut_subcommand(&name, |subcommand| {
            let path = format!("{path} {name}");
            let own = match (subcommand.get_after_help(), &shown) {
                (None, Some(shown)) => of(&path, shown),
                _ => None,
            };
            let subcommand = match own {
                Some(examples) => subcommand.after_help(examples),
                None => subcommand,
            };
            below(subcommand, &path)
        })
    })
}

/// The examples that use a command, with what else they show.
fn of(path: &str, examples: &str) -> Option<String> {
    let shown = examples.strip_prefix(TITLE)?;
    let lines: Vec<&str> = shown
        .lines()
        .filter(|line| {
            let rest = line.trim_start().strip_prefix(path);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
        })
        .collect();
    (!lines.is_empty()).then(|| format!("{TITLE}{}", lines.join("\n")))
}
