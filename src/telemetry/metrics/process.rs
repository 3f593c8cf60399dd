use std::time::Duration;

use ::metrics::SharedString;

use crate::telemetry::metrics::{
    families::{
        BUILD, DISK_FREE, PROCESS_CPU, PROCESS_MAX_FILES, PROCESS_OPEN_FILES, PROCESS_RESIDENT,
        PROCESS_START, PROCESS_THREADS, PROCESS_VIRTUAL, PROCESS_VIRTUAL_MAX,
    },
    family::Family,
    series::{counter, gauge, microseconds},
};

/// Called once, at the start; for example with `"0.1.0"`, `"2.11.0"` and `"cpu"`.
pub(crate) fn build_info(version: &str, libtorch: &str, device: &str) {
    let values = [version, libtorch, device].map(|value| SharedString::from(value.to_owned()));
    gauge(&BUILD, &values).set(1.0);
}

/// Bytes that are free on the disk of the data directory.
pub(crate) fn disk_free(bytes: u64) {
    gauge(&DISK_FREE, &[]).set(bytes as f64);
}

/// Reads the operating system's counters of this process. Values that it does not report stay
/// absent.
pub(crate) fn process_observed() {
    let now = metrics_process::collector::collect();
    if let Some(seconds) = now.cpu_seconds_total {
        counter(&PROCESS_CPU, &[])
            .absolute(microseconds(Duration::from_secs_f64(seconds.max(0.0))));
    }
    let set = |family: &'static Family, value: Option<u64>| {
        gauge(family, &[]).set(value.map_or(f64::NAN, |value| value as f64));
    };
    set(&PROCESS_START, now.start_time_seconds);
    set(&PROCESS_RESIDENT, now.resident_memory_bytes);
    set(&PROCESS_VIRTUAL, now.virtual_memory_bytes);
    set(&PROCESS_OPEN_FILES, now.open_fds);
    set(&PROCESS_THREADS, now.threads);
    // The collector reports "no limit" as 0, which a graph of used and allowed would show as full.
    set(
        &PROCESS_VIRTUAL_MAX,
        now.virtual_memory_max_bytes.filter(|&limit| limit > 0),
    );
    set(&PROCESS_MAX_FILES, now.max_fds.filter(|&limit| limit > 0));
}
