//! `visage serve`: settings, then the server.

use std::io::{self, IsTerminal as _};

use crate::{
    config::{Environment, LogFormat, LogLevel},
    server,
    telemetry::logging::{self, Format},
};

use super::{Context, Error, Outcome, flags::SettingFlags};

const EXAMPLES: &str = "\
Examples:
  visage serve
  visage serve --starter                   predicts at once, with the face model that is part of the program
  visage serve --data-dir /var/lib/visage --ready-file /run/visage.ready
  visage serve --grpc-listen 0.0.0.0:50051 --data-roots /data --weights-roots /weights
  visage config                            what would be used, and where it comes from

Settings come from the flags, else VISAGE_* variables, else the TOML file, else the defaults.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    settings: SettingFlags,
}

pub(super) async fn run(args: Args, context: &mut Context) -> Result<Outcome, Error> {
    let resolved = args.settings.resolve(&context.environment)?;
    let format = match resolved.config.log_format {
        LogFormat::Text => Format::Human,
        LogFormat::Json => Format::Json,
        LogFormat::Auto if io::stderr().is_terminal() => Format::Human,
        LogFormat::Auto => Format::Json,
    };
    logging::init(resolved.config.log_level.as_str(), format)?;
    let served = Box::pin(server::run(resolved.config)).await;
    served.map_err(|error| Error::Serve(Box::new(error)))?;
    Ok(Outcome::Done)
}

/// Logging of `visage worker`, whose lines become part of the server's log. The level comes from the variable that it inherits; a wrong one
/// has stopped the server already.
pub(super) fn log_as_worker() {
    let environment = Environment::of_process().unwrap_or_default();
    let level = environment
        .get("VISAGE_LOG_LEVEL")
        .and_then(LogLevel::parse)
        .unwrap_or(LogLevel::Info);
    // Without a log the training still does its work and reports over its pipe.
    logging::init(level.as_str(), Format::Json).ok();
}
