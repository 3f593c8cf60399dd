//! The head: mean over the pixels and the linear layer.

use std::ops::Range;

use half::bf16;

use super::{
    super::winograd::Images,
    parts::{ParameterRanges, Step},
};

/// Output channels of layer4.
const CHANNELS: usize = 512;

/// The trainable head, in f32.
#[derive(Debug)]
pub(super) struct Head {
    weight: Range<usize>,
    bias: usize,
    /// `[count, CHANNELS]`.
    pooled: Vec<f32>,
}

impl Head {
    pub(super) fn new(places: &ParameterRanges) -> Self {
        Head {
            weight: places.of("fc.weight"),
            bias: places.of("fc.bias").start,
            pooled: Vec::new(),
        }
    }

    /// Predicts `[count]`.
    pub(super) fn forward(&mut self, input: Images<'_>, step: Step<'_>) -> Vec<f32> {
        self.pooled = pooled(input.pixels, input.side * input.side);
        let (weight, bias) = (
            &step.parameters[self.weight.clone()],
            step.parameters[self.bias],
        );
        let of_image = |image: &[f32]| {
            let products = image.iter().zip(weight).map(|(a, b)| a * b);
            products.sum::<f32>() + bias
        };
        self.pooled.chunks_exact(CHANNELS).map(of_image).collect()
    }

    /// Propagates the gradient of the predictions, `[count]`, to the parameters and to images of
    /// this many pixels.
    pub(super) fn backward(
        &self,
        predicted: &[f32],
        pixels: usize,
        step: Step<'_>,
        gradient: &mut [u16],
        out: &mut [f32],
    ) {
        assert_eq!(predicted.len() * CHANNELS, self.pooled.len());
        out[self.bias] = predicted.iter().sum();
        let of_weight = &mut out[self.weight.clone()];
        of_weight.fill(0.0);
        for (image, gradient) in self.pooled.chunks_exact(CHANNELS).zip(predicted) {
            for (sum, value) in of_weight.iter_mut().zip(image) {
                *sum += gradient * value;
            }
        }
        let weight = &step.parameters[self.weight.clone()];
        spread(predicted, weight, pixels, gradient);
    }
}

/// Means over the pixels of each image, `[count, CHANNELS]`.
fn pooled(values: &[u16], pixels: usize) -> Vec<f32> {
    let mut means = vec![0.0; values.len() / pixels];
    for (image, means) in values
        .chunks_exact(pixels * CHANNELS)
        .zip(means.chunks_exact_mut(CHANNELS))
    {
        for pixel in image.chunks_exact(CHANNELS) {
            for (sum, value) in means.iter_mut().zip(pixel) {
                *sum += bf16::from_bits(*value).to_f32();
            }
        }
        for mean in means {
            *mean /= pixels as f32;
        }
    }
    means
}

/// The gradient of each pixel's channels from that of the predictions.
fn spread(predicted: &[f32], weight: &[f32], pixels: usize, out: &mut [u16]) {
    for (image, gradient) in out.chunks_exact_mut(pixels * CHANNELS).zip(predicted) {
        let (first, rest) = image.split_at_mut(CHANNELS);
        for (value, weight) in first.iter_mut().zip(weight) {
            *value = bf16::from_f32(gradient * weight / pixels as f32).to_bits();
        }
        for pixel in rest.chunks_exact_mut(CHANNELS) {
            pixel.copy_from_slice(first);
        }
    }
}
