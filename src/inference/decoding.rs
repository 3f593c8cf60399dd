//! From an image as a client sends it to the network's input.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use image::RgbImage;

use crate::{
    imaging::{self, Limits, Preprocessor},
    telemetry::metrics::{self, RejectionReason},
};

use super::{Error, ServedModel, annotate, input::Input, predictor::DecodeJob};

/// An image as a client sends it.
#[derive(Debug, Clone)]
pub enum Image {
    /// A file in one of the formats that [`crate::imaging`] reads.
    Encoded(Bytes),
    /// What the network reads, `[3, S, S]` and normalised, as little-endian f32.
    TensorBytes(Bytes),
    /// The same as numbers: the image with this number, from 0, of those that lie one behind the other.
    TensorValues(Arc<Vec<f32>>, usize),
}

impl Image {
    /// Whether the client has done the preprocessing.
    fn is_preprocessed(&self) -> bool {
        match self {
            Image::Encoded(_) => false,
            Image::TensorBytes(_) | Image::TensorValues(..) => true,
        }
    }
}

/// What is known of an image once it is decoded.
pub(super) struct Decoded {
    /// Width and height of the oriented image in pixels.
    pub(super) dimensions: (u32, u32),
    /// To draw on, where that was asked for.
    pub(super) image: Option<RgbImage>,
    /// Whether the client has done the preprocessing.
    pub(super) is_preprocessed: bool,
    /// Time that it took.
    pub(super) seconds: Duration,
}

/// What the network needs of an image.
pub(super) struct DecodedImage {
    pub(super) input: Input,
    pub(super) decoded: Decoded,
}

/// Makes of an image what the network's input is made of. Numbers that a client has prepared are checked and copied.
///
/// # Errors
/// A deadline that has passed, or an image or numbers that cannot be used.
pub(super) fn decode(job: &DecodeJob, limits: Limits) -> Result<DecodedImage, Error> {
    let (index, model) = (job.index, job.model.as_ref());
    let begun = Instant::now();
    if job.deadline.is_some_and(|deadline| deadline <= begun) {
        metrics::prediction_rejected(RejectionReason::DeadlineExceeded);
        return Err(Error::DeadlineExceeded);
    }
    let size = model.input.size;
    let made = match &job.image {
        Image::Encoded(bytes) => read(bytes, model, job.keeps_image(), limits)
            .map_err(|source| Error::Image { index, source }),
        Image::TensorBytes(bytes) => {
            let (values, rest) = bytes.as_chunks::<4>();
            let values = values.iter().map(|value| f32::from_le_bytes(*value));
            let whole = rest.is_empty().then(|| values.collect());
            check_values(index, model, whole)
                .map(|numbers| (Input::Numbers(numbers), (size, size), None))
        }
        Image::TensorValues(all, number) => {
            let count = model.input.values();
            let begin = number.saturating_mul(count);
            let values = all.get(begin..begin.saturating_add(count));
            check_values(index, model, values.map(<[f32]>::to_vec))
                .map(|numbers| (Input::Numbers(numbers), (size, size), None))
        }
    };
    let (input, dimensions, kept) = made.inspect_err(|_| {
        metrics::prediction_rejected(RejectionReason::InvalidImage);
    })?;
    let decoded = Decoded {
        dimensions,
        image: kept,
        is_preprocessed: job.image.is_preprocessed(),
        seconds: begun.elapsed(),
    };
    Ok(DecodedImage { input, decoded })
}

type Read = (Input, (u32, u32), Option<RgbImage>);

fn read(
    bytes: &[u8],
    model: &ServedModel,
    keep_image: bool,
    limits: Limits,
) -> Result<Read, imaging::Error> {
    let image = imaging::decode(bytes, &limits)?;
    let dimensions = image.dimensions();
    // Small at once: hundreds of decoded photographs would not fit into memory.
    let kept = keep_image.then(|| annotate::fit(&image));
    let resized = Preprocessor::new().resize(image, model.input.size);
    Ok((Input::Image(resized), dimensions, kept))
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
        Some(permit) => Err(refuse(format!(
            "number {permit} of {wanted} is {}, not finite",
            values[permit]
        ))),
    }
}
