//! What a picture that waits keeps for the network, and a batch of them as the network takes it.

use std::sync::{Mutex, PoisonError};

use image::RgbImage;

use crate::{
    imaging::{InputSpec, normalise_into},
    model::fused::Threads,
};

use super::queue::Item;

/// What the network's input is made of.
#[derive(Debug, Clone)]
pub enum Input {
    /// Of the network's size. It stays as it is while it waits, for its numbers take four times its room.
    Picture(RgbImage),
    /// `[3, S, S]`, normalised by the client.
    Numbers(Vec<f32>),
}

/// The inputs of a batch, kept from one to the next so that its memory need not be had anew.
#[derive(Debug, Default)]
pub(super) struct Inputs {
    numbers: Vec<f32>,
}

/// One input of a batch.
struct Row<'a> {
    input: &'a Input,
    is_mirrored: bool,
}

impl Inputs {
    /// The network's inputs, `[3, S, S]` each: of each picture in turn, and behind it of its mirror image where the mean over both is wanted. `spec`
    /// is that of all.
    pub(super) fn of<'a>(
        &'a mut self,
        batch: &'a [Item],
        spec: &InputSpec,
        threads: &Threads,
    ) -> Vec<&'a [f32]> {
        let rows = batch.iter().flat_map(|item| {
            let both = [false, true].into_iter().take(item.rows());
            both.map(|is_mirrored| Row {
                input: &item.input,
                is_mirrored,
            })
        });
        let rows = Vec::from_iter(rows);
        let to_make = rows.iter().filter(|row| row.as_is().is_none());
        self.numbers.resize(to_make.count() * spec.values(), 0.0);
        let rooms = self.numbers.chunks_exact_mut(spec.values());
        let to_make = rows.iter().filter(|row| row.as_is().is_none());
        let jobs = Vec::from_iter(to_make.zip(rooms).map(Mutex::new));
        threads.for_each(jobs.len(), |job| {
            let mut job = jobs[job].lock().unwrap_or_else(PoisonError::into_inner);
            let (row, room) = &mut *job;
            row.write(spec, room);
        });
        drop(jobs);
        let mut made = self.numbers.chunks_exact(spec.values());
        let rows = rows.iter().map(|row| row.as_is().or_else(|| made.next()));
        rows.flatten().collect()
    }
}

impl<'a> Row<'a> {
    /// The numbers, where they need not be made.
    fn as_is(&self) -> Option<&'a [f32]> {
        match self.input {
            Input::Numbers(numbers) if !self.is_mirrored => Some(numbers),
            Input::Numbers(_) | Input::Picture(_) => None,
        }
    }

    /// Makes the numbers.
    fn write(&self, spec: &InputSpec, out: &mut [f32]) {
        match self.input {
            Input::Picture(picture) => normalise_into(picture, spec, out),
            Input::Numbers(numbers) => out.copy_from_slice(numbers),
        }
        if self.is_mirrored {
            // Every row of every channel the other way round.
            out.chunks_exact_mut(spec.size as usize)
                .for_each(<[f32]>::reverse);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirror_image_turns_every_row_of_every_channel() {
        let numbers = (1..=12_u8).map(f32::from).collect();
        let row = Row {
            input: &Input::Numbers(numbers),
            is_mirrored: true,
        };
        let spec = InputSpec {
            size: 2,
            ..InputSpec::default()
        };
        let mut made = [0.0; 12];
        row.write(&spec, &mut made);
        assert_eq!(
            made,
            [2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11].map(|value: u8| f32::from(value))
        );
    }

    #[test]
    fn picture_becomes_what_the_formula_says_of_its_colours() {
        let spec = InputSpec {
            size: 2,
            mean: [0.5, 0.4, 0.2],
            std: [0.5, 0.2, 0.1],
            ..InputSpec::default()
        };
        let picture = RgbImage::from_fn(2, 2, |x, y| {
            image::Rgb([255, 51, if x > y { 0 } else { 51 }])
        });
        let row = Row {
            input: &Input::Picture(picture),
            is_mirrored: true,
        };
        let mut made = [0.0; 12];
        row.write(&spec, &mut made);
        // (1 - 0.5) / 0.5 = 1, (0.2 - 0.4) / 0.2 = -1, and of blue (0 - 0.2) / 0.1 = -2 on the right of the first row, which is on the left of the mirror image.
        let expected = [
            1.0, 1.0, 1.0, 1.0, -1.0, -1.0, -1.0, -1.0, -2.0, 0.0, 0.0, 0.0,
        ];
        for (made, expected) in made.iter().zip(expected) {
            assert!((made - expected).abs() < 1e-5, "{made} {expected}");
        }
    }
}
