//! Spans of a traced training, sent to the server.
//!
//! An epoch alternates between its phases thousands of times, and a span for each would cost more
//! and show less than one for their sum. The sums follow each other from the start of the epoch and
//! are marked as summed. Validation and checkpoint are single spans with their own times.

use std::time::{Duration, SystemTime};

use crate::proto::{
    v1::{EpochMetrics, EpochSeconds},
    worker_v1::{Job, Span, worker_event::Kind},
};

use super::{error::Error, link::EventSender};

/// Sends spans if the training is traced.
pub(super) struct Spans<'a> {
    events: Option<&'a EventSender>,
}

impl<'a> Spans<'a> {
    pub(super) fn new(job: &Job, events: &'a EventSender) -> Self {
        Spans {
            events: job.traced.then_some(events),
        }
    }

    /// Sends a span that ends now.
    ///
    /// # Errors
    /// A closed pipe.
    pub(super) fn record(&self, name: &str, start: SystemTime) -> Result<(), Error> {
        self.send(|| span(name, start, SystemTime::now()))
    }

    /// Sends the spans of an epoch that ends now. `before` is the time that earlier processes spent
    /// on it.
    ///
    /// # Errors
    /// A closed pipe.
    pub(super) fn record_epoch(
        &self,
        start: SystemTime,
        before: EpochSeconds,
        metrics: &EpochMetrics,
    ) -> Result<(), Error> {
        self.send(|| epoch((start, SystemTime::now()), before, metrics))
    }

    fn send(&self, span: impl FnOnce() -> Span) -> Result<(), Error> {
        match self.events {
            None => Ok(()),
            Some(events) => Ok(events.send(Kind::Span(span()))?),
        }
    }
}

fn epoch(
    (start, end): (SystemTime, SystemTime),
    before: EpochSeconds,
    metrics: &EpochMetrics,
) -> Span {
    let after = metrics.seconds.unwrap_or_default();
    let spent = |of: fn(&EpochSeconds) -> f64| {
        Duration::try_from_secs_f64(of(&after) - of(&before)).unwrap_or_default()
    };
    let mut parts = Vec::with_capacity(6);
    let mut from = start;
    type Part = fn(&EpochSeconds) -> f64;
    let sums: [(&str, Part); 4] = [
        ("data", |seconds| seconds.data),
        ("forward", |seconds| seconds.forward),
        ("backward", |seconds| seconds.backward),
        ("update", |seconds| seconds.update),
    ];
    for (name, of) in sums {
        let to = from + spent(of);
        parts.push(Span {
            summed: true,
            ..span(name, from, to)
        });
        from = to;
    }
    // The last two phases of an epoch.
    let checkpoint = end - spent(|seconds| seconds.checkpoint);
    let validation = checkpoint - spent(|seconds| seconds.validate);
    parts.push(span("validate", validation, checkpoint));
    if checkpoint < end {
        parts.push(span("checkpoint", checkpoint, end));
    }
    Span {
        epoch: metrics.epoch,
        parts,
        ..span("epoch", start, end)
    }
}

fn span(name: &str, start: SystemTime, end: SystemTime) -> Span {
    Span {
        name: name.to_owned(),
        start: Some(start.into()),
        end: Some(end.into()),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Start and end of a span in seconds since 1970.
    fn seconds(span: &Span) -> (f64, f64) {
        let of = |time: Option<prost_types::Timestamp>| {
            let time = time.unwrap();
            time.seconds as f64 + f64::from(time.nanos) / 1e9
        };
        (of(span.start), of(span.end))
    }

    #[test]
    fn phases_of_an_epoch_lie_within_it_without_the_time_of_earlier_processes() {
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
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(100);
        let span = epoch((start, start + Duration::from_secs(20)), before, &metrics);
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
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(100);
        let times = (start, start + Duration::from_secs(1));
        let span = epoch(times, EpochSeconds::default(), &EpochMetrics::default());
        assert!(span.parts.iter().all(|part| part.name != "checkpoint"));
        assert_eq!(span.parts.len(), 5);
    }
}
