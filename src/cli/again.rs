//! `--watch`: the same answer again and again, as it changes.

use std::time::Duration;

use tokio::time::sleep;

use super::{Context, Error, Outcome, observe::ctrl_c};

/// The flag of commands whose answer changes.
#[derive(Debug, clap::Args)]
pub(super) struct Again {
    /// Ask again every 2 seconds, or as often as said, and show what has changed
    #[arg(
        long,
        value_name = "INTERVAL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "2s",
        value_parser = parse_interval
    )]
    watch: Option<Duration>,
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let allowed = Duration::from_millis(100)..=Duration::from_secs(3600);
    match allowed.contains(&duration) {
        true => Ok(duration),
        false => Err("expected a duration from 100ms to 1h".to_owned()),
    }
}

/// What is to be shown, and whether it can still change.
pub(super) struct Shown {
    pub(super) lines: Vec<String>,
    pub(super) is_final: bool,
}

impl Shown {
    /// Lines that may be others at any time.
    pub(super) fn changing(lines: Vec<String>) -> Self {
        Self {
            lines,
            is_final: false,
        }
    }
}

/// Shows what `ask` answers, with `--watch` until Ctrl-C or until it cannot change any more. On a terminal each answer takes the place of the one before; in
/// a pipe an answer is printed when it differs from the one before, after an empty line if it is text.
///
/// # Errors
/// Those of the first answer. A server that is away later may come back.
pub(super) async fn show<F>(
    again: &Again,
    context: &Context,
    mut ask: impl FnMut() -> F,
) -> Result<Outcome, Error>
where
    F: Future<Output = Result<Shown, Error>>,
{
    let output = &context.output;
    let mut shown = ask().await?;
    let Some(interval) = again.watch else {
        shown.lines.iter().try_for_each(|line| output.line(line))?;
        return Ok(Outcome::Done);
    };
    output.wipe()?;
    shown.lines.iter().try_for_each(|line| output.line(line))?;
    let mut is_lost = false;
    while !shown.is_final {
        tokio::select! {
            () = sleep(interval) => {}
            () = ctrl_c() => return Ok(Outcome::Interrupted),
        }
        let next = match ask().await {
            Ok(next) => next,
            Err(error @ Error::Unreachable { .. }) => {
                if !std::mem::replace(&mut is_lost, true) {
                    output.complain(&format!("{error}; trying again"));
                }
                continue;
            }
            Err(error) => return Err(error),
        };
        if next.lines == shown.lines && !is_lost {
            shown = next;
            continue;
        }
        is_lost = false;
        if !output.wipe()? && !output.is_json() {
            output.line("")?;
        }
        next.lines.iter().try_for_each(|line| output.line(line))?;
        shown = next;
    }
    Ok(Outcome::Done)
}
