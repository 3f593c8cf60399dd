//! Durations, sizes and timestamps as text.

use std::time::Duration;

use prost_types::Timestamp;

/// `450ms`, `12s`, `2m10s`, `3h05m`.
pub(crate) fn duration_text(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        return format!("{}ms", duration.as_millis());
    }
    // Rounded to whole seconds first, so that 59.6 s is `1m00s` and not `60s`.
    let seconds = duration.as_secs() + u64::from(duration.subsec_millis() >= 500);
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m{seconds:02}s"),
        (hours, minutes, _) => format!("{hours}h{minutes:02}m"),
    }
}

/// `512 B`, `1.5 KiB`, `44.7 MiB`.
pub(crate) fn size_text(bytes: u64) -> String {
    let units = [(1u64 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    for (unit, name) in units {
        if bytes >= unit {
            return format!("{:.1} {name}", bytes as f64 / unit as f64);
        }
    }
    format!("{bytes} B")
}

/// A timestamp in whole seconds, such as `2026-01-31T12:00:00Z`; empty for `None`.
pub(crate) fn time_text(time: Option<Timestamp>) -> String {
    time.map(|time| Timestamp { nanos: 0, ..time }.to_string())
        .unwrap_or_default()
}

/// A duration of the API; zero if it is negative.
pub(crate) fn std_duration(duration: &prost_types::Duration) -> Duration {
    Duration::try_from(*duration).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_have_whole_seconds() {
        // From `date --utc --date=@1767225600`.
        let time = Timestamp {
            seconds: 1_767_225_600,
            nanos: 123_456_789,
        };
        assert_eq!(time_text(Some(time)), "2026-01-01T00:00:00Z");
        assert_eq!(time_text(None), "");
    }

    #[test]
    fn durations_and_sizes_are_short() {
        let text = |millis| duration_text(Duration::from_millis(millis));
        assert_eq!(text(450), "450ms");
        assert_eq!(text(59_600), "1m00s");
        assert_eq!(text(130_000), "2m10s");
        assert_eq!(text(11_100_000), "3h05m");
        assert_eq!(size_text(1023), "1023 B");
        assert_eq!(size_text(46_872_166), "44.7 MiB");
    }
}
