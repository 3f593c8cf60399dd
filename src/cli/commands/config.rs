//! `visage config`: the settings that `visage serve` would use.

use crate::{
    cli::{
        args::setting_flags::SettingFlags,
        context::{Context, Outcome},
        error::Error,
    },
    config,
    telemetry::metrics,
};

const EXAMPLES: &str = "\
Examples:
  visage config                            as TOML, each setting with its source
  visage config > visage.toml              a file to start from
  visage config --max-batch 64 --json
  visage config --markdown                 the table of all settings
  visage config --metrics                  the table of all metrics";

/// First lines of the TOML.
const HEADING: &str = "\
# Settings of `visage serve` in this directory with these flags and variables.
# `visage info` shows those of a running server.
";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Print a Markdown table of all settings instead
    #[arg(long, conflicts_with = "metrics")]
    markdown: bool,
    /// Print a Markdown table of all metrics instead
    #[arg(long)]
    metrics: bool,
    #[command(flatten)]
    settings: SettingFlags,
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<Outcome, Error> {
    let output = &context.output;
    if args.markdown {
        output.line(config::markdown_table().trim_end())?;
        return Ok(Outcome::Done);
    }
    if args.metrics {
        output.line(metrics::markdown_table().trim_end())?;
        return Ok(Outcome::Done);
    }
    let resolved = args.settings.resolve(&context.environment)?;
    match output.is_json() {
        true => output.object(&resolved.to_json())?,
        false => {
            output.line(HEADING)?;
            output.line(&resolved.to_toml())?;
        }
    }
    Ok(Outcome::Done)
}
