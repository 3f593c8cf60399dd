//! Arguments of `visage serve`, and the run of the server.

use std::io::{self, IsTerminal as _};

use crate::{
    cli::{
        args::setting_flags::SettingFlags,
        commands::serve::banner,
        context::{Context, Outcome},
        error::Error,
    },
    config::{Environment, LogFormat, LogLevel},
    server::{self, Ready},
    telemetry::logging::{self, Format},
};

const EXAMPLES: &str = "\
Examples:
  visage serve
  visage serve --starter                   predict immediately with the built-in face model
  visage serve --data-dir /var/lib/visage --ready-file /run/visage.ready
  visage serve --data-roots /data --weights-roots /weights
  visage config                            show the resulting settings and their sources

Precedence of settings: flags, VISAGE_* variables, the TOML file, defaults.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    settings: SettingFlags,
}

pub(crate) async fn run(args: Args, context: &mut Context) -> Result<Outcome, Error> {
    let resolved = args.settings.resolve(&context.environment)?;
    let format = match resolved.config.log_format {
        LogFormat::Text => Format::Human,
        LogFormat::Json => Format::Json,
        LogFormat::Auto if io::stderr().is_terminal() => Format::Human,
        LogFormat::Auto => Format::Json,
    };
    logging::init(resolved.config.log_level.as_str(), format)?;
    let (output, data_dir) = (context.output.clone(), resolved.config.data_dir.clone());
    let on_ready = move |ready: Ready| {
        if io::stderr().is_terminal() {
            for line in banner::lines(&ready, &data_dir) {
                output.note(&line);
            }
        }
    };
    let served = Box::pin(server::run(resolved.config, on_ready)).await;
    served.map_err(|error| Error::Serve(Box::new(error)))?;
    Ok(Outcome::Done)
}

/// Sets up the logging of `visage worker`, whose lines become part of the server's log. The level
/// is in a variable that the server has checked.
pub(crate) fn init_worker_logging() {
    let environment = Environment::of_process().unwrap_or_default();
    let level = environment
        .get("VISAGE_LOG_LEVEL")
        .and_then(LogLevel::parse)
        .unwrap_or(LogLevel::Info);
    // Without a log the training still runs and reports over its pipe.
    logging::init(level.as_str(), Format::Json).ok();
}
