//! Output of a prediction.

use std::time::Duration;

use crate::detection::Face;

use super::explain::Explanation;

/// The result for one image.
#[derive(Debug, Clone)]
pub(crate) struct Prediction {
    /// Age in years; NaN if faces were requested and none was found.
    pub age: f64,
    pub interval: Option<Interval>,
    /// Width and height of the oriented image in pixels.
    pub dimensions: (u32, u32),
    /// The image with the age drawn on it, as PNG.
    pub annotated_png: Option<Vec<u8>>,
    /// Explanation of the age; faces have their own.
    pub explanation: Option<RenderedExplanation>,
    /// Faces by falling weight, if they were requested; `age` is that of the first.
    pub faces: Option<Vec<FacePrediction>>,
    /// Cache hit or miss; `None` if the cache was not used.
    pub cached: Option<bool>,
    /// Time for decoding, orientation and resizing, and for face detection if requested.
    pub decode: Duration,
    /// Time between the hand-over to the engine and the start of the batch.
    pub queue: Duration,
    /// Time of the batch's forward pass.
    pub inference: Duration,
}

/// The result for one face of an image.
#[derive(Debug, Clone)]
pub(crate) struct FacePrediction {
    pub face: Face,
    /// Age in years.
    pub age: f64,
    pub interval: Option<Interval>,
    pub explanation: Option<RenderedExplanation>,
}

/// A prediction interval in years.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Interval {
    pub lower: f64,
    pub upper: f64,
    /// Share of true ages that the interval contains, 0 to 1.
    pub level: f64,
}

/// An explanation as numbers and as an image.
#[derive(Debug, Clone)]
pub(crate) struct RenderedExplanation {
    pub explanation: Explanation,
    /// The explanation laid over the image, as PNG; `None` for preprocessed input.
    pub png: Option<Vec<u8>>,
}
