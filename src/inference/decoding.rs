//! From a picture as a client sends it to the network's input.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use image::RgbImage;

use crate::{
    imaging::{self, Limits, Preprocessor, normalise_into},
    telemetry::metrics::{self, RejectionReason},
};

use super::{Error, ServedModel, annotate, predictor::DecodeJob};

/// A picture as a client sends it.
#[derive(Debug, Clone)]
pub enum Picture {
    /// A file in one of the formats that [`crate::imaging`] reads.
    Encoded(Bytes),
    /// What the network reads, `[3, S, S]` and normalised, as little-endian f32.
    Raw(Bytes),
    /// The same as numbers: the picture with this number, from 0, of those that lie one behind the other.
    Values(Arc<Vec<f32>>, usize),
}

impl Picture {
    /// Whether the client has done the preprocessing.
    fn is_prepared(&self) -> bool {
        match self {
            Picture::Encoded(_) => false,
            Picture::Raw(_) | Picture::Values(..) => true,
        }
    }
}

/// What is known of a picture once it is decoded.
pub(super) struct Decoded {
    /// Width and height of the oriented picture in pixels.
    pub(super) dimensions: (u32, u32),
    /// To draw on, where that was asked for.
    pub(super) picture: Option<RgbImage>,
    /// Whether the client has done the preprocessing.
    pub(super) is_prepared: bool,
    /// Time that it took.
    pub(super) seconds: Duration,
}

/// The network's input.
pub(super) struct Prepared {
    /// `[3, S, S]`, normalised.
    pub(super) pixels: Vec<f32>,
    /// The same of the mirror image, where it is wanted.
    pub(super) mirrored: Option<Vec<f32>>,
    pub(super) decoded: Decoded,
}

/// Makes the network's input of a picture. Numbers that a client has prepared are checked and copied.
///
/// # Errors
/// A deadline that has passed, or a picture or numbers that cannot be used.
pub(super) fn decode(job: &DecodeJob, limits: Limits) -> Result<Prepared, Error> {
    let (index, model) = (job.index, job.model.as_ref());
    let begun = Instant::now();
    if job.deadline.is_some_and(|deadline| deadline <= begun) {
        metrics::prediction_rejected(RejectionReason::DeadlineExceeded);
        return Err(Error::DeadlineExceeded);
    }
    let size = model.input.size;
    let made = match &job.picture {
        Picture::Encoded(bytes) => read(bytes, model, job.keeps_picture(), limits)
            .map_err(|source| Error::Image { index, source }),
        Picture::Raw(bytes) => {
            let (values, rest) = bytes.as_chunks::<4>();
            let values = values.iter().map(|value| f32::from_le_bytes(*value));
            let whole = rest.is_empty().then(|| values.collect());
            check_values(index, model, whole).map(|pixels| (pixels, (size, size), None))
        }
        Picture::Values(all, number) => {
            let count = model.input.values();
            let begin = number.saturating_mul(count);
            let values = all.get(begin..begin.saturating_add(count));
            check_values(index, model, values.map(<[f32]>::to_vec))
                .map(|pixels| (pixels, (size, size), None))
        }
    };
    let (pixels, dimensions, kept) = made.inspect_err(|_| {
        metrics::prediction_rejected(RejectionReason::InvalidImage);
    })?;
    let flip = job.wishes.average_flip;
    let mirrored = flip.then(|| mirrored(&pixels, size as usize));
    let decoded = Decoded {
        dimensions,
        picture: kept,
        is_prepared: job.picture.is_prepared(),
        seconds: begun.elapsed(),
    };
    Ok(Prepared {
        pixels,
        mirrored,
        decoded,
    })
}

/// The network's input of the mirror image: every row of every channel, `side` numbers, the other way round.
pub(super) fn mirrored(pixels: &[f32], side: usize) -> Vec<f32> {
    let rows = pixels.chunks(side);
    rows.flat_map(|row| row.iter().rev().copied()).collect()
}

type Read = (Vec<f32>, (u32, u32), Option<RgbImage>);

fn read(
    bytes: &[u8],
    model: &ServedModel,
    keep_picture: bool,
    limits: Limits,
) -> Result<Read, imaging::Error> {
    let picture = imaging::decode(bytes, &limits)?;
    let dimensions = picture.dimensions();
    // Small at once: hundreds of decoded photographs would not fit into memory.
    let kept = keep_picture.then(|| annotate::fit(&picture));
    let resized = Preprocessor::new().resize(picture, model.input.size);
    let mut pixels = vec![0.0; model.input.values()];
    normalise_into(&resized, &model.input, &mut pixels);
    Ok((pixels, dimensions, kept))
}

/// Refuses numbers that are too few or too many, or that are none.
fn check_values(
    index: usize,
    model: &ServedModel,
    values: Option<Vec<f32>>,
) -> Result<Vec<f32>, Error> {
    let refuse = |reason: String| Error::Pixels { index, reason };
    let wanted = model.input.values();
    let values = values.filter(|values| values.len() == wanted);
    let values = values.ok_or_else(|| refuse(format!("there are not {wanted} numbers")))?;
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(values),
        Some(place) => Err(refuse(format!(
            "number {place} of {wanted} is {}, not finite",
            values[place]
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirror_image_turns_every_row_of_every_channel() {
        let pixels: Vec<f32> = (1..=12_u8).map(f32::from).collect();
        let expected = [2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11].map(|value: u8| f32::from(value));
        assert_eq!(mirrored(&pixels, 2), expected);
    }
}
