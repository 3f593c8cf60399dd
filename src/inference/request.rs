//! Input of a prediction.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;

use super::ServedModel;

/// Images of one client, to be predicted with one model version.
#[derive(Debug)]
pub(crate) struct PredictRequest {
    pub model: Arc<ServedModel>,
    pub images: Vec<Image>,
    pub options: PredictOptions,
    /// Time after which the result is useless; the work is dropped then.
    pub deadline: Option<Instant>,
    pub priority: Priority,
    pub client: Client,
}

/// Identity of a client for fair sharing: its own name for itself, or its address. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Client(Arc<str>);

impl Client {
    pub(crate) fn new(name: &str) -> Self {
        Client(name.into())
    }

    #[must_use]
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// All clients that cannot be distinguished.
    pub(crate) fn unknown() -> Self {
        Client::new("")
    }
}

/// Scheduling class of waiting images.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Priority {
    /// A user waits for the result.
    #[default]
    Interactive,
    /// Uses the capacity that interactive images leave, and never all permits.
    Batch,
}

/// An image as a client sends it.
#[derive(Debug, Clone)]
pub(crate) enum Image {
    /// A file in one of the formats that [`crate::imaging`] reads.
    Encoded(Bytes),
    /// A preprocessed network input, `[3, S, S]`, as little-endian f32.
    TensorBytes(Bytes),
    /// The same as values: the input with this index among contiguous ones.
    TensorValues(Arc<Vec<f32>>, usize),
}

impl Image {
    /// Returns true if the client has already preprocessed the image.
    pub(super) fn is_preprocessed(&self) -> bool {
        match self {
            Image::Encoded(_) => false,
            Image::TensorBytes(_) | Image::TensorValues(..) => true,
        }
    }
}

/// Results in addition to the age of each image.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct PredictOptions {
    /// Return the image with the age drawn on it.
    pub annotate: bool,
    /// Return the contribution of each image region to the age.
    pub explain: bool,
    /// Find the faces and predict on each of them instead of the whole image.
    pub detect_faces: bool,
    /// Average the prediction over the image and its mirror image.
    pub average_flip: bool,
    /// Confidence level of the intervals, one of the model's calibration; `None` for no intervals.
    pub interval_level: Option<f64>,
}
