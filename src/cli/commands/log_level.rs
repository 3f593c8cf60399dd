//! `visage log-level`: shows or changes the log filter of the running server.

use crate::{
    cli::{
        client::request,
        context::{Context, Outcome},
        error::Error,
        output::json,
    },
    proto::v1::{GetLogLevelRequest, SetLogLevelRequest},
};

const EXAMPLES: &str = "\
Examples:
  visage log-level                              current filter
  visage log-level debug                        details for developers
  visage log-level info,visage::store=debug     more details of one module
  visage log-level info                         the default

The change lasts until the server stops, and applies to trainings that are
started afterwards.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// `off`, `error`, `warn`, `info`, `debug` or `trace`, or a list such as
    /// `info,visage::store=debug`; omitted, the current filter is shown
    directives: Option<String>,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<Outcome, Error> {
    let client = context.connect().await?;
    let mut system = client.system();
    let output = &context.output;
    let Some(directives) = args.directives else {
        let response = system.get_log_level(request(GetLogLevelRequest {})).await;
        let current = client.message(response)?;
        match output.is_json() {
            true => output.object(&json::value("GetLogLevelResponse", &current))?,
            false => output.line(&current.directives)?,
        }
        return Ok(Outcome::Done);
    };
    let message = SetLogLevelRequest { directives };
    let changed = client.message(system.set_log_level(request(message)).await)?;
    if output.is_json() {
        output.object(&json::value("SetLogLevelResponse", &changed))?;
    } else {
        output.line(&changed.directives)?;
        output.note(&format!("It was {}.", changed.previous));
    }
    Ok(Outcome::Done)
}
