use std::time::Duration;

use crate::telemetry::metrics::{
    families::{ARTIFACTS_DAMAGED, ARTIFACTS_VERIFIED, LIVE_MODEL, MODEL_LOAD, MODEL_VERSIONS},
    series::{gauge, histogram},
};

/// The live version of `model` changed; `None` means without a version.
pub(crate) fn live_model_changed(model: &str, before: Option<u64>, now: Option<u64>) {
    let series = |version: u64| {
        gauge(
            &LIVE_MODEL,
            &[model.to_owned().into(), version.to_string().into()],
        )
    };
    if let Some(version) = before {
        series(version).set(f64::NAN);
    }
    if let Some(version) = now {
        series(version).set(1.0);
    }
}

pub(crate) fn model_versions(versions: u64) {
    gauge(&MODEL_VERSIONS, &[]).set(versions as f64);
}

pub(crate) fn model_loaded(elapsed: Duration) {
    histogram(&MODEL_LOAD, &[]).record(elapsed);
}

/// The damaged artifacts, and the end of the last verification of all in seconds since the Unix
/// epoch, 0 before the first one.
pub(crate) fn artifacts_verified(damaged: u64, last_pass: i64) {
    gauge(&ARTIFACTS_DAMAGED, &[]).set(damaged as f64);
    if last_pass > 0 {
        gauge(&ARTIFACTS_VERIFIED, &[]).set(last_pass as f64);
    }
}
