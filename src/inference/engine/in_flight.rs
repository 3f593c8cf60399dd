//! A batch from the start of its forward pass to its results.

use std::{sync::Arc, time::Instant};

use crate::{
    inference::{
        Error, ServedModel, Statistics,
        explain::Explanation,
        loaded::PendingForward,
        model_io::ModelOutput,
        observer::{batch_computed, batch_failed},
        queue::QueueEntry,
    },
    model::{self, checkpoint::LabelScale, resnet18},
};

pub(super) struct InFlightBatch {
    pub(super) entries: Vec<QueueEntry>,
    pub(super) model: Arc<ServedModel>,
    pub(super) started: Instant,
    /// One output for each row; a mirror image follows its image.
    pub(super) outputs: Result<PendingForward, model::Error>,
}

impl InFlightBatch {
    /// Waits for the outputs and sends the results.
    pub(super) fn finish(self, statistics: &Statistics) {
        let InFlightBatch {
            entries,
            model,
            started,
            outputs,
        } = self;
        let outputs = outputs.and_then(PendingForward::finish);
        let inference = started.elapsed();
        batch_computed(statistics, &model.name, &entries, started, inference);
        let mut outputs = match outputs {
            Ok(outputs) => outputs.into_iter(),
            Err(error) => {
                batch_failed(&model.name, &entries, &error);
                let source = Arc::new(error);
                for entry in entries {
                    entry.reply(Err(Error::Model {
                        model: model.name.clone(),
                        source: Arc::clone(&source),
                    }));
                }
                return;
            }
        };
        let mut next = || outputs.next().map(|output| in_years(output, &model.label));
        for entry in entries {
            let Some((age, explanation)) = next() else {
                return;
            };
            let mirrored = entry.job.options.average_flip.then(&mut next).flatten();
            let (age, explanation) = match mirrored {
                None => (age, explanation),
                Some((mirrored_age, mirrored)) => {
                    let both = explanation.zip(mirrored);
                    let mean = both.map(|(plain, mirrored)| plain.mean(&mirrored));
                    (age.midpoint(mirrored_age), mean)
                }
            };
            let output = ModelOutput {
                age,
                explanation,
                queue: started.saturating_duration_since(entry.enqueued),
                inference,
            };
            entry.reply(Ok(output));
        }
    }
}

/// Returns an output and the contributions of the image regions in years.
fn in_years(output: resnet18::Output, label: &LabelScale) -> (f64, Option<Explanation>) {
    let age = label.age(f64::from(output.value));
    let explain = |parts| Explanation::new(age, parts, label.scale);
    (age, output.attribution.map(explain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negative_output_is_age_0_and_its_explanation_sums_up_to_it() {
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
            let (age, explanation) = in_years(output(value), &label);
            assert_eq!(age, expected);
            let explanation = explanation.unwrap();
            assert_eq!(explanation.years, [-20.0, 5.0, -30.0, 2.5]);
            assert_eq!(explanation.base - 42.5, expected);
        }
        let (age, _) = in_years(output(f32::NAN), &label);
        assert!(age.is_nan());
    }
}
