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

use super::{Error, ServedModel, annotate};

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

/// Makes the network's input of a picture. Numbers that a client has prepared are checked and copied.
///
/// # Errors
/// A deadline that has passed, or a picture or numbers that cannot be used.
pub(super) fn decode(
    index: usize,
    picture: &Picture,
    model: &ServedModel,
    keep_picture: bool,
    deadline: Option<Instant>,
    limits: Limits,
) -> Result<(Vec<f32>, Decoded), Error> {
    let begun = Instant::now();
    if deadline.is_some_and(|deadline| deadline <= begun) {
        metrics::prediction_rejected(RejectionReason::DeadlineExceeded);
        return Err(Error::DeadlineExceeded);
    }
    let size = model.input.size;
    let made = match picture {
        Picture::Encoded(bytes) => prepare(bytes, model, keep_picture, limits)
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
    let decoded = Decoded {
        dimensions,
        picture: kept,
        is_prepared: picture.is_prepared(),
        seconds: begun.elapsed(),
    };
    Ok((pixels, decoded))
}

type Prepared = (Vec<f32>, (u32, u32), Option<RgbImage>);

fn prepare(
    bytes: &[u8],
    model: &ServedModel,
    keep_picture: bool,
    limits: Limits,
) -> Result<Prepared, imaging::Error> {
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
