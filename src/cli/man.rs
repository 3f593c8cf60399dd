//! `visage man`: a manual page for each command.

use std::path::{Path, PathBuf};

use clap::{
    Command,
    builder::{Resettable, StyledStr},
};
use clap_mangen::Man;

use crate::files;

use super::{Context, Error, Outcome, command};

const EXAMPLES: &str = "\
Examples:
  visage man ~/.local/share/man/man1      then `man visage-train`
  visage man /usr/local/share/man/man1    for all users of the machine";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Directory that the pages are written to; made when it is missing
    dir: PathBuf,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Outcome, Error> {
    fs_err::create_dir_all(&args.dir).map_err(Error::File)?;
    let mut all = command();
    // Gives every command its full name and the global flags.
    all.build();
    let count = write(&all, &args.dir)?;
    context
        .output
        .note(&format!("Wrote {count} pages to {}.", args.dir.display()));
    Ok(Outcome::Done)
}

/// The examples as a section of a page, as they are.
fn section(examples: &str) -> String {
    let mut text = String::from(".SH EXAMPLES\n.nf\n");
    for line in examples
        .strip_prefix("Examples:\n")
        .unwrap_or(examples)
        .lines()
    {
        let line = line.replace('\\', "\\e").replace('-', "\\-");
        // A dot or a quote at the beginning would be a command.
        text.push_str(&format!("\\&{line}\n"));
    }
    text.push_str(".fi\n");
    text
}

/// Writes the pages of a command and of those below it, and says how many.
fn write(command: &Command, dir: &Path) -> Result<usize, Error> {
    let name = command.get_display_name().unwrap_or(command.get_name());
    let mut page = Vec::new();
    // What stands below the options are examples, whose lines must stay lines.
    let above = command.clone().after_help(Resettable::<StyledStr>::Reset);
    Man::new(above).render(&mut page).map_err(Error::File)?;
    if let Some(examples) = command.get_after_help() {
        page.extend_from_slice(section(&examples.to_string()).as_bytes());
    }
    let path = dir.join(format!("{name}.1"));
    let put = |aside: &Path| fs_err::write(aside, &page);
    files::write_durably_by(&path, put).map_err(Error::File)?;
    let shown = command
        .get_subcommands()
        .filter(|subcommand| !subcommand.is_hide_set() && subcommand.get_name() != "help");
    let below: Result<Vec<usize>, Error> = shown.map(|found| write(found, dir)).collect();
    Ok(1 + below?.into_iter().sum::<usize>())
}
