//! Where the time of a training's process went, told to the server for the trace of a training that is traced.
//!
//! An epoch alternates between its phases thousands of times, and a span for each would tell less and cost more than their sums. The sums stand one after
//! the other from the epoch's begin on, as if the epoch had first waited for all its data, then run all its forward passes, and so on, and say that they are
//! sums. Validation and the checkpoint of an epoch are one piece each and stand where they were.

use std::time::{Duration, SystemTime};

use crate::proto::{
    v1::{EpochMetrics, EpochSeconds},
    worker_v1::{Job, TimeSpan, worker_event::Kind},
};

use super::{failure::Error, process::Reporter};

/// Tells spans, or nothing where the training is not traced.
pub(super) struct Spans<'a> {
    reporter: Option<&'a Reporter>,
}

impl<'a> Spans<'a> {
    pub(super) fn new(job: &Job, reporter: &'a Reporter) -> Self {
        Spans {
            reporter: job.traced.then_some(reporter),
        }
    }

    /// Something that began then and ended now.
    ///
    /// # Errors
    /// When the server is gone.
    pub(super) fn done(&self, name: &str, begun: SystemTime) -> Result<(), Error> {
        self.send(|| piece(name, begun, SystemTime::now()))
    }

    /// A complete epoch that ended now. `before` is what had been spent on it when this process began with it.
    ///
    /// # Errors
    /// When the server is gone.
    pub(super) fn epoch(
        &self,
        begun: SystemTime,
        before: EpochSeconds,
        metrics: &EpochMetrics,
    ) -> Result<(), Error> {
        self.send(|| epoch((begun, SystemTime::now()), before, metrics))
    }

    fn send(&self, span: impl FnOnce() -> TimeSpan) -> Result<(), Error> {
        match self.reporter {
            None => Ok(()),
            Some(reporter) => reporter.send(Kind::Span(span())).map_err(Error::Pipe),
        }
    }
}

fn epoch(
    (begun, ended): (SystemTime, SystemTime),
    before: EpochSeconds,
    metrics: &EpochMetrics,
) -> TimeSpan {
    let after = metrics.seconds.unwrap_or_default();
    let spent = |of: fn(&EpochSeconds) -> f64| {
        Duration::try_from_secs_f64(of(&after) - of(&before)).unwrap_or_default()
    };
    let mut parts = Vec::with_capacity(6);
    let mut from = begun;
    type Part = fn(&EpochSeconds) -> f64;
    let sums: [(&str, Part); 4] = [
        ("data", |seconds| seconds.data),
        ("forward", |seconds| seconds.forward),
        ("backward", |seconds| seconds.backward),
        ("update", |seconds| seconds.update),
    ];
    for (name, of) in sums {
        let to = from + spent(of);
        parts.push(TimeSpan {
            summed: true,
            ..piece(name, from, to)
        });
        from = to;
    }
    // The epoch ends with these two.
    let checkpoint = ended - spent(|seconds| seconds.checkpoint);
    let validation = checkpoint - spent(|seconds| seconds.validate);
    parts.push(piece("validate", validation, checkpoint));
    if checkpoint < ended {
        parts.push(piece("checkpoint", checkpoint, ended));
    }
    TimeSpan {
        epoch: metrics.epoch,
        parts,
        ..piece("epoch", begun, ended)
    }
}

fn piece(name: &str, begin: SystemTime, end: SystemTime) -> TimeSpan {
    TimeSpan {
        name: name.to_owned(),
        begin: Some(begin.into()),
        end: Some(end.into()),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Begin and end of a span in seconds since 1970.
    fn seconds(span: &TimeSpan) -> (f64, f64) {
        let of = |time: Option<prost_types::Timestamp>| {
            let time = time.unwrap();
            time.seconds as f64 + f64::from(time.nanos) / 1e9
        };
        (of(span.begin), of(span.end))
    }

    #[test]
    fn phases_of_an_epoch_lie_inside_of_it_without_what_an_earlier_process_spent() {
        let before = EpochSeconds {
            data: 1.0,
            forward: 10.0,
            checkpoint: 0.5,
            ..Default::default()
        };
        let metrics = EpochMetrics {
            epoch: 3,
            seconds: Some(EpochSeconds {
                data: 2.0,
                forward: 14.0,
                backward: 3.0,
                update: 1.0,
                validate: 5.0,
                checkpoint: 1.5,
                ..Default::default()
            }),
            ..Default::default()
        };
        let begun = SystemTime::UNIX_EPOCH + Duration::from_secs(100);
        let span = epoch((begun, begun + Duration::from_secs(20)), before, &metrics);
        assert_eq!((span.name.as_str(), span.epoch), ("epoch", 3));
        assert_eq!(seconds(&span), (100.0, 120.0));
        let parts: Vec<_> = span
            .parts
            .iter()
            .map(|part| (part.name.as_str(), seconds(part), part.summed))
            .collect();
        let expected = [
            ("data", (100.0, 101.0), true),
            ("forward", (101.0, 105.0), true),
            ("backward", (105.0, 108.0), true),
            ("update", (108.0, 109.0), true),
            ("validate", (114.0, 119.0), false),
            ("checkpoint", (119.0, 120.0), false),
        ];
        assert_eq!(parts, expected);
    }

    #[test]
    fn epoch_without_a_checkpoint_has_no_such_part() {
        let begun = SystemTime::UNIX_EPOCH + Duration::from_secs(100);
        let times = (begun, begun + Duration::from_secs(1));
        let span = epoch(times, EpochSeconds::default(), &EpochMetrics::default());
        assert!(span.parts.iter().all(|part| part.name != "checkpoint"));
        assert_eq!(span.parts.len(), 5);
    }
}
