//! `visage synth`: draws faces of known ages, for a first try without data.

use std::{ops::RangeInclusive, path::PathBuf};

use serde_json::json;

use crate::{
    cli::{
        context::{Context, Outcome},
        error::Error,
    },
    synth::{self, Options, write_faces},
};

const EXAMPLES: &str = "\
Examples:
  visage synth faces/
  visage synth faces/ --count 2000 --size 128 --ages 18-80 --seed 7";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Directory to write to; created if missing
    dir: PathBuf,
    /// Number of images
    #[arg(long, value_name = "N", default_value_t = Options::default().count)]
    count: usize,
    /// Seed of the faces; the same seed draws the same faces
    #[arg(long, value_name = "N", default_value_t = Options::default().seed)]
    seed: u64,
    /// Width and height of an image in pixels, 32 to 2048
    #[arg(long, value_name = "PIXELS", default_value_t = Options::default().size)]
    size: u32,
    /// Lowest and highest age in years [default: 1-90]
    #[arg(long, value_name = "FROM-TO", value_parser = parse_ages)]
    ages: Option<RangeInclusive<u8>>,
}

pub(crate) fn run(args: Args, context: &mut Context) -> Result<Outcome, Error> {
    let options = Options {
        count: args.count,
        seed: args.seed,
        size: args.size,
        ages: args.ages.unwrap_or(Options::default().ages),
    };
    let count = options.count;
    let output = &mut context.output;
    let result = write_faces(&args.dir, &options, |done| {
        output.draw(
            done as f64 / count.max(1) as f64,
            format!("{done}/{count} images"),
        );
    });
    context.output.clear();
    let summary = result.map_err(refused)?;
    let dir = args.dir.display().to_string();
    if context.output.is_json() {
        let object = json!({ "dir": dir, "written": summary.written, "kept": summary.kept });
        context.output.object(&object)?;
        return Ok(Outcome::Done);
    }
    context.output.line(&dir)?;
    context.output.note(&format!(
        "{} images drawn, {} already existed. Train on them with `visage train {dir} --recipe fast`.",
        summary.written, summary.kept
    ));
    Ok(Outcome::Done)
}

/// Values out of range are wrong usage of the flag that the message starts with.
fn refused(error: synth::Error) -> Error {
    match error {
        synth::Error::Count { .. } | synth::Error::Size { .. } | synth::Error::Ages { .. } => {
            Error::Usage(format!("--{error}"))
        }
        synth::Error::Foreign { .. } | synth::Error::Io(_) | synth::Error::Encode { .. } => {
            error.into()
        }
    }
}

fn parse_ages(text: &str) -> Result<RangeInclusive<u8>, String> {
    let expected = || "expected FROM-TO in years, such as 18-80".to_owned();
    let (from, to) = text.split_once('-').ok_or_else(expected)?;
    let from: u8 = from.trim().parse().map_err(|_| expected())?;
    let to: u8 = to.trim().parse().map_err(|_| expected())?;
    if from > to {
        return Err(expected());
    }
    Ok(from..=to)
}
