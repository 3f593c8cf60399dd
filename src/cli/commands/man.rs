//! `visage man`: manual pages of all commands.

use std::path::{Path, PathBuf};

use clap::{
    Command,
    builder::{Resettable, StyledStr},
};
use clap_mangen::Man;

use crate::{
    cli::{
        context::{Context, Outcome},
        error::Error,
    },
    files,
};

const EXAMPLES: &str = "\
Examples:
  visage man ~/.local/share/man/man1      then `man visage-train`
  visage man /usr/local/share/man/man1    for all users of the machine";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Directory to write the pages to; created if missing
    dir: PathBuf,
}

pub(crate) fn run(args: &Args, mut program: Command, context: &Context) -> Result<Outcome, Error> {
    fs_err::create_dir_all(&args.dir).map_err(Error::File)?;
    // Sets the full name and the global flags of every command.
    program.build();
    let count = write(&program, &args.dir)?;
    context
        .output
        .note(&format!("Wrote {count} pages to {}.", args.dir.display()));
    Ok(Outcome::Done)
}

/// The examples as a section of a page, unformatted.
fn section(examples: &str) -> String {
    let mut text = String::from(".SH EXAMPLES\n.nf\n");
    for line in examples
        .strip_prefix("Examples:\n")
        .unwrap_or(examples)
        .lines()
    {
        let line = line.replace('\\', "\\e").replace('-', "\\-");
        // A leading dot or quote would be a roff command.
        text.push_str(&format!("\\&{line}\n"));
    }
    text.push_str(".fi\n");
    text
}

/// Writes the pages of a command and its subcommands, and returns their number.
fn write(command: &Command, dir: &Path) -> Result<usize, Error> {
    let name = command.get_display_name().unwrap_or(command.get_name());
    let mut page = Vec::new();
    // The examples follow as a section that keeps their line breaks.
    let above = command.clone().after_help(Resettable::<StyledStr>::Reset);
    Man::new(above).render(&mut page).map_err(Error::File)?;
    if let Some(examples) = command.get_after_help() {
        page.extend_from_slice(section(&examples.to_string()).as_bytes());
    }
    let path = dir.join(format!("{name}.1"));
    let put = |temporary: &Path| fs_err::write(temporary, &page);
    files::write_atomic_with(&path, put).map_err(Error::File)?;
    let shown = command
        .get_subcommands()
        .filter(|subcommand| !subcommand.is_hide_set() && subcommand.get_name() != "help");
    let below: Result<Vec<usize>, Error> = shown.map(|found| write(found, dir)).collect();
    Ok(1 + below?.into_iter().sum::<usize>())
}
