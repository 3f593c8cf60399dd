//! Input and output of the engine for one image.

use std::time::Duration;

use image::RgbImage;

use super::explain::Explanation;

/// Data for the network's input.
#[derive(Debug, Clone)]
pub(crate) enum ModelInput {
    /// An image of the network's size. It waits as bytes, because its floats take four times the
    /// memory.
    Image(RgbImage),
    /// `[3, S, S]`, normalised by the client.
    Values(Vec<f32>),
}

#[derive(Debug, Clone)]
pub(crate) struct ModelOutput {
    /// Years, label scale applied.
    pub(crate) age: f64,
    /// Contribution of each region, if requested.
    pub(crate) explanation: Option<Explanation>,
    /// Time between the hand-over to the engine and the start of the batch.
    pub(crate) queue: Duration,
    /// Time of the batch's forward pass.
    pub(crate) inference: Duration,
}
