//! Examples in the help of every command: its own, or the lines of its parent that show it.

use clap::Command;

const TITLE: &str = "Examples:\n";

/// Copies the examples of a command to those of its subcommands that have none.
pub(crate) fn hand_down(command: Command) -> Command {
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

/// The example lines of a command.
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
