//! Holds the recorded metrics of this process and renders them for Prometheus.
//!
//! The recorder is global, so [`install`] returns the same [`Handle`] on every call. The HTTP port
//! serves the text and runs [`Handle::upkeep`].

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use metrics_exporter_prometheus::{
    BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::metrics::{self, FAMILIES, Family, Kind};

/// The content type of [`Handle::render`]'s text.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// How often the samples of histograms are added to their buckets if nothing scrapes. Until then
/// they are stored individually.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A histogram without buckets, or a recorder of another library.
    #[error("failed to install the metrics recorder: a process can have only one")]
    Install(#[source] Arc<BuildError>),
}

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    prometheus: PrometheusHandle,
}

/// Installs the recorder of this process. Further calls return the result of the first.
///
/// # Errors
/// [`Error::Install`] if another library installed a recorder.
pub(crate) fn install() -> Result<Handle, Error> {
    static INSTALLED: OnceLock<Result<Handle, Error>> = OnceLock::new();
    INSTALLED
        .get_or_init(|| {
            let recorder = recorder().map_err(|error| Error::Install(Arc::new(error)))?;
            let handle = Handle {
                prometheus: recorder.handle(),
            };
            ::metrics::set_global_recorder(recorder)
                .map_err(|error| Error::Install(Arc::new(error.into())))?;
            metrics::describe();
            Ok(handle)
        })
        .clone()
}

impl Handle {
    /// Renders all metrics as Prometheus text, ordered by name.
    pub(crate) fn render(&self) -> String {
        metrics::process_observed();
        exposition(&self.prometheus.render())
    }

    /// Maintains the recorder until `shutdown`; without it, memory grows while nothing scrapes.
    pub(crate) async fn upkeep(&self, shutdown: &CancellationToken) {
        let mut interval = tokio::time::interval(UPKEEP_INTERVAL);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while shutdown
            .run_until_cancelled(interval.tick())
            .await
            .is_some()
        {
            self.prometheus.run_upkeep();
        }
    }
}

fn recorder() -> Result<PrometheusRecorder, BuildError> {
    let mut builder = PrometheusBuilder::new();
    for family in FAMILIES {
        if let Kind::Histogram(buckets) = family.kind {
            builder = builder.set_buckets_for_metric(Matcher::Full(family.name.into()), buckets)?;
        }
    }
    Ok(builder.build_recorder())
}

/// Sorts the metrics by name, omits gauges without a value, and converts microseconds to seconds.
fn exposition(recorded: &str) -> String {
    // Every metric ends with an empty line; line ends inside of one are escaped.
    let mut blocks: Vec<&str> = recorded.split_terminator("\n\n").collect();
    blocks.sort_unstable();

    let mut text = String::with_capacity(recorded.len());
    for block in blocks {
        let family = family_of(block);
        let is_gauge = family.is_some_and(|family| matches!(family.kind, Kind::Gauge(_)));
        let in_microseconds = family.is_some_and(Family::is_kept_in_microseconds);
        for line in block.lines() {
            match sample(line) {
                Some((_, value)) if is_gauge && value.is_nan() => continue,
                Some((series, microseconds)) if in_microseconds => {
                    text.push_str(&format!("{series} {}", microseconds / 1e6));
                }
                Some(_) | None => text.push_str(line),
            }
            text.push('\n');
        }
        text.push('\n');
    }
    text
}

/// The family of a block, from its first line (`# HELP name …` or `# TYPE name …`).
fn family_of(block: &str) -> Option<&'static Family> {
    let name = block.split(' ').nth(2)?;
    FAMILIES.iter().find(|family| family.name == name).copied()
}

/// Splits a line into the series and its value; `None` for a comment.
fn sample(line: &str) -> Option<(&str, f64)> {
    if line.starts_with('#') {
        return None;
    }
    let (series, value) = line.rsplit_once(' ')?;
    Some((series, value.parse().ok()?))
}

/// A recorder for the thread of one test, so that tests do not share values.
#[cfg(test)]
pub(crate) fn for_test() -> (PrometheusRecorder, Handle) {
    let recorder = recorder().unwrap();
    let handle = Handle {
        prometheus: recorder.handle(),
    };
    ::metrics::with_local_recorder(&recorder, metrics::describe);
    (recorder, handle)
}
