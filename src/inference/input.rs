//! What an image that waits keeps for the network, and a batch of them as the network takes it.

use std::sync::{Mutex, PoisonError};

use image::RgbImage;

use crate::{
    imaging::{InputSpec, normalise_into},
    model::fused::Threads,
};

use super::queue::QueueEntry;

/// What the network's input is made of.
#[derive(Debug, Clone)]
pub enum Input {
    /// Of the network's size. It stays as it is while it waits, for its numbers take four times its room.
    Image(RgbImage),
    /// `[3, S, S]`, normalised by the client.
    Numbers(Vec<f32>),
}

/// The inputs of a batch, kept from one to the next so that its memory need not be had anew.
#[derive(Debug, Default)]
pub(super) struct Inputs {
    numbers: Vec<f32>,
}

impl Inputs {
    /// The network's inputs, `[3, S, S]` each: of each image in turn, and behind it of its mirror image where the mean over both is wanted. `spec`
    /// is that of all.
    pub(super) fn of<'a>(
        &'a mut self,
        batch: &'a [QueueEntry],
        spec: &InputSpec,
        threads: &Threads,
    ) -> Vec<&'a [f32]> {
        let to_make = batch.iter().map(rows_to_make).sum::<usize>();
        self.numbers.resize(to_make * spec.values(), 0.0);
        let mut rooms = self.numbers.as_mut_slice();
        let mut jobs = Vec::with_capacity(batch.len());
        for item in batch {
            let length = rows_to_make(item) * spec.values();
            let (room, others) = rooms.split_at_mut(length);
            rooms = others;
            if length > 0 {
                jobs.push(Mutex::new((item, room)));
            }
        }
        threads.for_each(jobs.len(), |job| {
            let mut job = jobs[job].lock().unwrap_or_else(PoisonError::into_inner);
            let (item, room) = &mut *job;
            make(&item.input, item.average_flip, spec, room);
        });
        drop(jobs);
        let mut made = self.numbers.chunks_exact(spec.values());
        let mut rows = Vec::with_capacity(batch.iter().map(QueueEntry::rows).sum());
        for item in batch {
            if let Input::Numbers(numbers) = &item.input {
                rows.push(numbers.as_slice());
            }
            rows.extend(made.by_ref().take(rows_to_make(item)));
        }
        rows
    }
}

/// Of an item's rows those that are not there already.
fn rows_to_make(item: &QueueEntry) -> usize {
    match item.input {
        Input::Image(_) => item.rows(),
        Input::Numbers(_) => item.rows() - 1,
    }
}

/// Makes what is not there already: an image's numbers, and those of the mirror image where it is wanted.
fn make(input: &Input, is_mirrored: bool, spec: &InputSpec, room: &mut [f32]) {
    let (own, mirror_image) = match input {
        Input::Image(image) => {
            let (own, mirror_image) = room.split_at_mut(spec.values());
            normalise_into(image, spec, own);
            (&*own, mirror_image)
        }
        Input::Numbers(numbers) => (numbers.as_slice(), room),
    };
    if is_mirrored {
        mirror_image.copy_from_slice(own);
        // Every row of every channel the other way round.
        mirror_image
            .chunks_exact_mut(spec.size as usize)
            .for_each(<[f32]>::reverse);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirror_image_turns_every_row_of_every_channel() {
        let numbers = (1..=12_u8).map(f32::from).collect();
        let spec = InputSpec {
            size: 2,
            ..InputSpec::default()
        };
        let mut made = [0.0; 12];
        make(&Input::Numbers(numbers), true, &spec, &mut made);
        assert_eq!(
            made,
            [2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11].map(|value: u8| f32::from(value))
        );
    }

    #[test]
    fn image_becomes_what_the_formula_says_of_its_colours() {
        let spec = InputSpec {
            size: 2,
            mean: [0.5, 0.4, 0.2],
            std: [0.5, 0.2, 0.1],
            ..InputSpec::default()
        };
        let image = RgbImage::from_fn(2, 2, |x, y| {
            image::Rgb([255, 51, if x > y { 0 } else { 51 }])
        });
        let mut made = [0.0; 24];
        make(&Input::Image(image), true, &spec, &mut made);
        // (1 - 0.5) / 0.5 = 1, (0.2 - 0.4) / 0.2 = -1, and of blue (0 - 0.2) / 0.1 = -2 on the right of the first row, which is on the left of the mirror image.
        let expected = [
            [
                1.0, 1.0, 1.0, 1.0, -1.0, -1.0, -1.0, -1.0, 0.0, -2.0, 0.0, 0.0,
            ],
            [
                1.0, 1.0, 1.0, 1.0, -1.0, -1.0, -1.0, -1.0, -2.0, 0.0, 0.0, 0.0,
            ],
        ];
        for (made, expected) in made.iter().zip(expected.as_flattened()) {
            assert!((made - expected).abs() < 1e-5, "{made} {expected}");
        }
    }
}
