//! The input of a forward pass.

use std::sync::{Mutex, PoisonError};

use crate::{
    imaging::{InputSpec, normalise_into},
    inference::{model_io::ModelInput, queue::QueueEntry},
    model::fused::Threads,
};

/// The buffer of a batch, reused from one batch to the next.
#[derive(Debug, Default)]
pub(super) struct BatchInputs {
    values: Vec<f32>,
}

impl BatchInputs {
    /// Returns the network's inputs, `[3, S, S]` each: every image, followed by its mirror image if
    /// the mean over both is requested. All entries have the input specification `spec`.
    pub(super) fn assemble<'a>(
        &'a mut self,
        entries: &'a [QueueEntry],
        spec: &InputSpec,
        threads: &Threads,
    ) -> Vec<&'a [f32]> {
        let computed = entries.iter().map(computed_rows).sum::<usize>();
        self.values.resize(computed * spec.values(), 0.0);
        let mut rest = self.values.as_mut_slice();
        let mut tasks = Vec::with_capacity(entries.len());
        for entry in entries {
            let length = computed_rows(entry) * spec.values();
            let (output, others) = rest.split_at_mut(length);
            rest = others;
            if length > 0 {
                tasks.push(Mutex::new((entry, output)));
            }
        }
        threads.for_each(tasks.len(), |task| {
            let mut task = tasks[task].lock().unwrap_or_else(PoisonError::into_inner);
            let (entry, output) = &mut *task;
            compute_rows(&entry.input, entry.job.options.average_flip, spec, output);
        });
        drop(tasks);
        let mut computed = self.values.chunks_exact(spec.values());
        let mut rows = Vec::with_capacity(entries.iter().map(QueueEntry::rows).sum());
        for entry in entries {
            if let ModelInput::Values(values) = &entry.input {
                rows.push(values.as_slice());
            }
            rows.extend(computed.by_ref().take(computed_rows(entry)));
        }
        rows
    }
}

/// Returns the number of an entry's rows that the client has not sent.
fn computed_rows(entry: &QueueEntry) -> usize {
    match entry.input {
        ModelInput::Image(_) => entry.rows(),
        ModelInput::Values(_) => entry.rows() - 1,
    }
}

/// Computes the rows that the client has not sent: an image's values, and its mirror image if
/// requested.
fn compute_rows(input: &ModelInput, average_flip: bool, spec: &InputSpec, output: &mut [f32]) {
    let (plain, mirrored) = match input {
        ModelInput::Image(image) => {
            let (plain, mirrored) = output.split_at_mut(spec.values());
            normalise_into(image, spec, plain);
            (&*plain, mirrored)
        }
        ModelInput::Values(values) => (values.as_slice(), output),
    };
    if average_flip {
        mirrored.copy_from_slice(plain);
        // Every row of every channel is reversed.
        mirrored
            .chunks_exact_mut(spec.size as usize)
            .for_each(<[f32]>::reverse);
    }
}

#[cfg(test)]
mod tests {
    use image::RgbImage;

    use super::*;

    #[test]
    fn mirror_image_reverses_every_row_of_every_channel() {
        let values = (1..=12_u8).map(f32::from).collect();
        let spec = InputSpec {
            size: 2,
            ..InputSpec::default()
        };
        let mut computed = [0.0; 12];
        compute_rows(&ModelInput::Values(values), true, &spec, &mut computed);
        assert_eq!(
            computed,
            [2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11].map(|value: u8| f32::from(value))
        );
    }

    #[test]
    fn image_is_normalised_by_channel() {
        let spec = InputSpec {
            size: 2,
            mean: [0.5, 0.4, 0.2],
            std: [0.5, 0.2, 0.1],
            ..InputSpec::default()
        };
        let image = RgbImage::from_fn(2, 2, |x, y| {
            image::Rgb([255, 51, if x > y { 0 } else { 51 }])
        });
        let mut computed = [0.0; 24];
        compute_rows(&ModelInput::Image(image), true, &spec, &mut computed);
        // (1 - 0.5) / 0.5 = 1, (0.2 - 0.4) / 0.2 = -1, and for blue (0 - 0.2) / 0.1 = -2 on the
        // right of the first row, which is on the left of the mirror image.
        let expected = [
            [
                1.0, 1.0, 1.0, 1.0, -1.0, -1.0, -1.0, -1.0, 0.0, -2.0, 0.0, 0.0,
            ],
            [
                1.0, 1.0, 1.0, 1.0, -1.0, -1.0, -1.0, -1.0, -2.0, 0.0, 0.0, 0.0,
            ],
        ];
        for (computed, expected) in computed.iter().zip(expected.as_flattened()) {
            assert!((computed - expected).abs() < 1e-5, "{computed} {expected}");
        }
    }
}
