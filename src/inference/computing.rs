//! A batch from the beginning of its forward pass to its answers.

use std::{sync::Arc, time::Instant};

use crate::{
    model::{self, checkpoint::LabelScale, resnet18},
    telemetry::{metrics, traces},
};

use super::{
    Error, ServedModel, engine::Output, explain::Explanation, loaded::PendingForward,
    queue::QueueEntry, spans, statistics::Statistics,
};

/// A batch that was begun.
pub(super) struct InFlightBatch {
    pub(super) batch: Vec<QueueEntry>,
    pub(super) model: Arc<ServedModel>,
    pub(super) begun: Instant,
    /// One for each row; that of an image's mirror image comes behind its own.
    pub(super) outputs: Result<PendingForward, model::Error>,
}

impl InFlightBatch {
    /// Waits for the outputs and answers.
    pub(super) fn finish(self, statistics: &Statistics) {
        let InFlightBatch {
            batch,
            model,
            begun,
            outputs,
        } = self;
        let outputs = outputs.and_then(PendingForward::finish);
        let followed = spans::followed(&batch);
        let inference = begun.elapsed();
        spans::batch(&followed, &model.name, batch.len(), begun, inference);
        metrics::batch_computed(batch.len(), inference);
        statistics.computed(&model.name, batch.len(), inference);
        match outputs {
            Ok(outputs) => {
                let mut outputs = outputs.into_iter();
                let mut next = || outputs.next().map(|output| years(output, &model.label));
                for item in batch {
                    let Some((age, explanation)) = next() else {
                        return;
                    };
                    let of_mirror_image = item.average_flip.then(&mut next).flatten();
                    let (age, explanation) = match of_mirror_image {
                        None => (age, explanation),
                        Some((other, mirrored)) => {
                            let both = explanation.zip(mirrored);
                            let mean = both.map(|(plain, mirrored)| plain.mean(&mirrored));
                            (age.midpoint(other), mean)
                        }
                    };
                    let output = Output {
                        age,
                        explanation,
                        queue: begun.saturating_duration_since(item.enqueued),
                        inference,
                    };
                    // A client that has left needs no answer.
                    drop(item.reply.send(Ok((output, item.permit))));
                }
            }
            Err(error) => {
                let first = followed.first().map(|(trace, _)| trace);
                traces::in_scope(first, || {
                    tracing::error!(model = model.name, %error, "failed to compute a batch");
                });
                let source = Arc::new(error);
                for item in batch {
                    let error = Error::Model {
                        model: model.name.clone(),
                        source: Arc::clone(&source),
                    };
                    drop(item.reply.send(Err(error)));
                }
            }
        }
    }
}

/// An output in years, and what each permit of the image adds to it.
fn years(output: resnet18::Output, label: &LabelScale) -> (f64, Option<Explanation>) {
    let age = label.age(f64::from(output.value));
    let explain = |parts| Explanation::new(age, parts, label.scale);
    (age, output.attribution.map(explain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_negative_output_is_an_age_of_0_that_its_explanation_sums_up_to() {
        let label = LabelScale {
            scale: 10.0,
            offset: 30.0,
        };
        let output = |value| resnet18::Output {
            value,
            attribution: Some(vec![-2.0, 0.5, -3.0, 0.25]),
        };
        // 30 - 34.5 years, and 30 + 10 years.
        for (value, expected) in [(-3.45, 0.0), (1.0, 40.0)] {
            let (age, explanation) = years(output(value), &label);
            assert_eq!(age, expected);
            let explanation = explanation.unwrap();
            assert_eq!(explanation.years, [-20.0, 5.0, -30.0, 2.5]);
            assert_eq!(explanation.base - 42.5, expected);
        }
        let (age, _) = years(output(f32::NAN), &label);
        assert!(age.is_nan());
    }
}
