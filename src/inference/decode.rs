//! Decoding: from an image as a client sends it to the data for the network's input.

use std::time::{Duration, Instant};

use image::RgbImage;

use super::{
    Error, Image, ServedModel, annotate, job::Job, model_io::ModelInput, observer::rejected_for,
};
use crate::imaging::{self, Limits, Preprocessor};

/// Properties of a decoded image in addition to the network's input.
#[derive(Debug)]
pub(super) struct DecodedImage {
    /// Width and height of the oriented image in pixels.
    pub(super) dimensions: (u32, u32),
    /// A small copy to draw on, if the request asks for drawings.
    pub(super) canvas: Option<RgbImage>,
    /// True if the client has preprocessed the image.
    pub(super) is_preprocessed: bool,
    pub(super) elapsed: Duration,
}

/// Decodes, orients and resizes an image. Preprocessed input is checked and copied.
///
/// # Errors
/// A deadline that has passed, or an image or values that cannot be used.
pub(super) fn decode(
    job: &Job,
    image: &Image,
    limits: Limits,
) -> Result<(ModelInput, DecodedImage), Error> {
    let started = Instant::now();
    let decoded = if job.is_late() {
        Err(Error::DeadlineExceeded)
    } else {
        read(job, image, limits)
    };
    let (input, dimensions, canvas) = decoded.inspect_err(rejected_for)?;
    let decoded = DecodedImage {
        dimensions,
        canvas,
        is_preprocessed: image.is_preprocessed(),
        elapsed: started.elapsed(),
    };
    Ok((input, decoded))
}

type Read = (ModelInput, (u32, u32), Option<RgbImage>);

fn read(job: &Job, image: &Image, limits: Limits) -> Result<Read, Error> {
    let (index, model) = (job.index, job.model.as_ref());
    let values = match image {
        Image::Encoded(bytes) => {
            return read_encoded(bytes, job, limits)
                .map_err(|source| Error::Image { index, source });
        }
        Image::TensorBytes(bytes) => {
            let (values, rest) = bytes.as_chunks::<4>();
            let values = values.iter().map(|value| f32::from_le_bytes(*value));
            rest.is_empty().then(|| values.collect())
        }
        Image::TensorValues(all, number) => {
            let count = model.input.values();
            let start = number.saturating_mul(count);
            let values = all.get(start..start.saturating_add(count));
            values.map(<[f32]>::to_vec)
        }
    };
    let values = check_values(index, model, values)?;
    let size = model.input.size;
    Ok((ModelInput::Values(values), (size, size), None))
}

fn read_encoded(bytes: &[u8], job: &Job, limits: Limits) -> Result<Read, imaging::Error> {
    let (image, _memory) = imaging::decode_reserved(bytes, &limits)?;
    let dimensions = image.dimensions();
    // Shrunk at once: hundreds of decoded images would not fit into memory.
    let canvas = job.keeps_image().then(|| annotate::fit(&image));
    let resized = Preprocessor::new().resize(image, job.model.input.size);
    Ok((ModelInput::Image(resized), dimensions, canvas))
}

/// Refuses a wrong number of values, and values that are not finite.
fn check_values(
    index: usize,
    model: &ServedModel,
    values: Option<Vec<f32>>,
) -> Result<Vec<f32>, Error> {
    let refuse = |reason: String| Error::Pixels { index, reason };
    let expected = model.input.values();
    let values = values.filter(|values| values.len() == expected);
    let values = values.ok_or_else(|| refuse(format!("there are not {expected} numbers")))?;
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(values),
        Some(position) => Err(refuse(format!(
            "number {position} of {expected} is {}, not finite",
            values[position]
        ))),
    }
}
