//! Numbers and durations that limit a training.

use std::time::Duration;

use crate::proto::{
    v1,
    validation::{Check, Range},
};

/// Longest protobuf Duration (google/protobuf/duration.proto).
const MAX_DURATION: Duration = Duration::from_secs(315_576_000_000);
const MAX_CHECKPOINT_INTERVAL: Duration = Duration::from_secs(24 * 3_600);
const DEFAULT_CHECKPOINT_INTERVAL: Duration = Duration::from_secs(300);

pub(super) fn max_epochs(check: &mut Check, field: &str, given: Option<u32>) -> u32 {
    check.integer(field, given, 10, 1..=10_000)
}

pub(super) fn patience(check: &mut Check, field: &str, given: Option<u32>) -> u32 {
    check.integer(field, given, 0, 0..=10_000)
}

pub(super) fn learning_rate(check: &mut Check, field: &str, given: Option<f64>) -> f64 {
    check.number(field, given, 1e-4, Range::POSITIVE)
}

pub(super) fn max_restarts(check: &mut Check, given: Option<&v1::RestartPolicy>) -> Option<u32> {
    let given = given?.max_restarts?;
    let field = "spec.restart_policy.max_restarts";
    Some(check.integer(field, Some(given), given, 0..=1_000))
}

pub(super) fn max_duration(
    check: &mut Check,
    given: Option<&prost_types::Duration>,
) -> Option<Duration> {
    duration(check, "spec.max_duration", given?, MAX_DURATION)
}

pub(super) fn checkpoint_interval(
    check: &mut Check,
    given: Option<&prost_types::Duration>,
) -> Duration {
    let Some(given) = given else {
        return DEFAULT_CHECKPOINT_INTERVAL;
    };
    let field = "spec.checkpoint_interval";
    let interval = duration(check, field, given, MAX_CHECKPOINT_INTERVAL);
    let interval = interval.unwrap_or(DEFAULT_CHECKPOINT_INTERVAL);
    if interval < Duration::from_secs(1) {
        check.refuse(field, format!("must be at least 1 s, got {interval:?}"));
    }
    interval
}

fn duration(
    check: &mut Check,
    field: &str,
    given: &prost_types::Duration,
    max: Duration,
) -> Option<Duration> {
    match Duration::try_from(*given) {
        Ok(duration) if !duration.is_zero() && duration <= max => Some(duration),
        _ => {
            check.refuse(
                field,
                format!(
                    "must be above 0 s and at most {} s, got {} s",
                    max.as_secs(),
                    given.seconds
                ),
            );
            None
        }
    }
}

pub(super) fn duration_message(duration: Duration) -> Option<prost_types::Duration> {
    prost_types::Duration::try_from(duration).ok()
}
