//! `--watch`: repeats a query and prints its result whenever it changes.

use std::{mem, ops::RangeInclusive, time::Duration};

use tokio::{signal, time::sleep};

use crate::cli::{
    context::{Context, Outcome},
    error::Error,
};

const INTERVALS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3600);

#[derive(Debug, clap::Args)]
pub(crate) struct WatchFlag {
    /// Repeat every 2 seconds, or at the given interval, and print what changed
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

pub(crate) fn parse_interval(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    match INTERVALS.contains(&duration) {
        true => Ok(duration),
        false => Err("expected a duration from 100ms to 1h".to_owned()),
    }
}

/// Result of a query at one moment.
pub(crate) struct Snapshot {
    pub(crate) lines: Vec<String>,
    /// True if later results will be the same.
    pub(crate) is_final: bool,
}

impl Snapshot {
    pub(crate) fn changing(lines: Vec<String>) -> Self {
        Self {
            lines,
            is_final: false,
        }
    }
}

/// Prints the result of `query`; with `--watch` until Ctrl-C or a final result. A terminal shows
/// the latest result only. A pipe receives each changed result, text after an empty line.
///
/// # Errors
/// Errors of the first query, and later ones except an unreachable server, which is retried.
pub(crate) async fn print(
    flag: &WatchFlag,
    context: &Context,
    mut query: impl AsyncFnMut() -> Result<Snapshot, Error>,
) -> Result<Outcome, Error> {
    let output = &context.output;
    let mut shown = query().await?;
    let Some(interval) = flag.watch else {
        shown.lines.iter().try_for_each(|line| output.line(line))?;
        return Ok(Outcome::Done);
    };
    output.clear_screen()?;
    shown.lines.iter().try_for_each(|line| output.line(line))?;
    let mut is_lost = false;
    while !shown.is_final {
        tokio::select! {
            () = sleep(interval) => {}
            () = ctrl_c() => return Ok(Outcome::Interrupted),
        }
        let next = match query().await {
            Ok(next) => next,
            Err(error @ Error::Unreachable { .. }) => {
                if !mem::replace(&mut is_lost, true) {
                    output.warn(&format!("{error}; retrying"));
                }
                continue;
            }
            Err(error) => return Err(error),
        };
        let is_unchanged = next.lines == shown.lines && !is_lost;
        shown = next;
        if is_unchanged {
            continue;
        }
        is_lost = false;
        if !output.clear_screen()? && !output.is_json() {
            output.line("")?;
        }
        shown.lines.iter().try_for_each(|line| output.line(line))?;
    }
    Ok(Outcome::Done)
}

/// Resolves at Ctrl-C; never if the signal cannot be observed.
pub(crate) async fn ctrl_c() {
    if signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}
