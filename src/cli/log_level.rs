//! `visage log-level`: what the server logs, and changing it while it runs.

use crate::proto::v1::{GetLogLevelRequest, SetLogLevelRequest};

use super::{Context, Error, Outcome, client::request, json};

const EXAMPLES: &str = "\
Examples:
  visage log-level                              what the server logs now
  visage log-level debug                        everything that a developer wants to see
  visage log-level info,visage::store=debug     more of one part
  visage log-level info                         back to the default

The change lasts until the server ends. Trainings that are started afterwards log the same.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// `off`, `error`, `warn`, `info`, `debug` or `trace`, or a list such as `info,visage::store=debug`; nothing to show what it is
    directives: Option<String>,
}

pub(super) async fn run(args: Args, context: &Context) -> Result<Outcome, Error> {
    let client = context.connect().await?;
    let mut system = client.system();
    let output = &context.output;
    match args.directives {
        None => {
            let answer = system.get_log_level(request(GetLogLevelRequest {})).await;
            let found = client.answer(answer)?;
            if output.is_json() {
                output.object(&json::value("GetLogLevelResponse", &found))?;
            } else {
                output.line(&found.directives)?;
            }
        }
        Some(directives) => {
            let message = SetLogLevelRequest { directives };
            let changed = client.answer(system.set_log_level(request(message)).await)?;
            if output.is_json() {
                output.object(&json::value("SetLogLevelResponse", &changed))?;
            } else {
                output.line(&changed.directives)?;
                output.note(&format!("It was {}.", changed.previous));
            }
        }
    }
    Ok(Outcome::Done)
}
