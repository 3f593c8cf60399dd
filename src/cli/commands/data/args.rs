//! The data directory as an argument, and the progress of reading it.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::{
    backup::Damage,
    cli::{
        args::paths::current_dir,
        context::Context,
        error::Error,
        output::{Output, text::size_text},
    },
    config::{Flags, load},
};

/// The data directory of the settings, unless it is given.
pub(super) fn data_dir(given: Option<PathBuf>, context: &Context) -> Result<PathBuf, Error> {
    match given {
        Some(path) => Ok(path),
        None => {
            let resolved = load(&context.environment, &Flags::new(), None, &current_dir()?)?;
            Ok(resolved.config.data_dir)
        }
    }
}

/// Draws the bytes that were read.
pub(super) fn draw(output: &mut Output, done: u64, total: Option<u64>) {
    let (fraction, text) = match total {
        Some(total) => (
            done as f64 / total.max(1) as f64,
            format!("{} of {}", size_text(done), size_text(total)),
        ),
        None => (0.0, size_text(done)),
    };
    output.draw(fraction, text);
}

/// Prints damaged files, one a line.
pub(super) fn print_damage(output: &Output, damaged: &[Damage]) {
    for damage in damaged {
        output.warn(&format!("damaged: {damage}"));
    }
}

pub(super) fn damage_json(damaged: &[Damage]) -> Value {
    json!(damaged)
}
