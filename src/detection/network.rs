//! The later stages: small neural networks over the gradients of a window, which classify it and
//! correct its position.
//!
//! The features are SURF's: in each of four cells of a patch, sums of the horizontal gradient and
//! of its magnitude, separately for pixels with and without a negative vertical gradient, and the
//! same with the directions exchanged.

use std::sync::OnceLock;

use super::boosted::WINDOW;

/// Sums in each cell.
const CHANNELS: usize = 8;
/// Four cells of [`CHANNELS`].
pub(super) const VALUES_OF_PATCH: usize = 4 * CHANNELS;
/// Certainty, shift to the right, shift down and growth, each between 0 and 1.
pub(super) const OUTPUTS: usize = 4;

/// A part of the window, of two by two cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Patch {
    left: usize,
    top: usize,
    width: usize,
    height: usize,
}

/// Returns all patches, by the numbers that a model uses: five aspect ratios, sizes from 16 pixels,
/// positions 16 pixels apart.
pub(super) fn patches() -> &'static [Patch] {
    const ASPECTS: [(usize, usize); 5] = [(1, 1), (1, 2), (2, 1), (2, 3), (3, 2)];
    const MIN_SIZE: usize = 16;
    const STEP: usize = 16;
    static PATCHES: OnceLock<Vec<Patch>> = OnceLock::new();
    PATCHES.get_or_init(|| {
        let mut patches = Vec::new();
        for (across, down) in ASPECTS {
            for height in MIN_SIZE..=WINDOW {
                if height % 2 != 0 || height % down != 0 {
                    continue;
                }
                let width = height / down * across;
                if width % 2 != 0 || !(MIN_SIZE..=WINDOW).contains(&width) {
                    continue;
                }
                for top in (0..=WINDOW - height).step_by(STEP) {
                    for left in (0..=WINDOW - width).step_by(STEP) {
                        patches.push(Patch {
                            left,
                            top,
                            width,
                            height,
                        });
                    }
                }
            }
        }
        patches
    })
}

/// A fully connected layer, one row of weights for each output.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) inputs: usize,
    pub(super) weights: Vec<f32>,
    pub(super) biases: Vec<f32>,
}

impl Layer {
    fn forward(&self, input: &[f32], activation: impl Fn(f32) -> f32) -> Vec<f32> {
        let rows = self.weights.chunks_exact(self.inputs).zip(&self.biases);
        let row = |(weights, bias): (&[f32], &f32)| {
            let products = weights
                .iter()
                .zip(input)
                .map(|(weight, value)| weight * value);
            activation(products.sum::<f32>() + bias)
        };
        rows.map(row).collect()
    }
}

#[derive(Debug)]
pub(super) struct Network {
    patches: Vec<Patch>,
    threshold: f32,
    layers: Vec<Layer>,
}

/// A window that a network classifies as a face.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Detection {
    /// Above the network's threshold, up to 1.
    pub(super) certainty: f32,
    /// Shift and growth as shares of the window's side, -1 to 1.
    pub(super) right: f32,
    pub(super) down: f32,
    pub(super) growth: f32,
}

impl Network {
    /// The sizes of the layers must match, from the patches to [`OUTPUTS`].
    pub(super) fn new(patches: Vec<Patch>, threshold: f32, layers: Vec<Layer>) -> Self {
        Network {
            patches,
            threshold,
            layers,
        }
    }

    /// Returns `None` if the window is not a face.
    pub(super) fn classify(&self, gradients: &Gradients) -> Option<Detection> {
        let mut values = Vec::with_capacity(self.patches.len() * VALUES_OF_PATCH);
        for patch in &self.patches {
            gradients.describe(patch, &mut values);
        }
        let (last, hidden) = self.layers.split_last()?;
        for layer in hidden {
            values = layer.forward(&values, |value| value.max(0.0));
        }
        let outputs = last.forward(&values, |value| 1.0 / (1.0 + (-value).exp()));
        let [certainty, right, down, growth] = *outputs.first_chunk::<OUTPUTS>()?;
        let signed = |share: f32| share * 2.0 - 1.0;
        (certainty > self.threshold).then_some(Detection {
            certainty,
            right: signed(right),
            down: signed(down),
            growth: signed(growth),
        })
    }
}

/// Integral images of a window's gradients, with a first row and column of zeros.
#[derive(Debug)]
pub(super) struct Gradients {
    sums: Vec<[i32; CHANNELS]>,
}

impl Default for Gradients {
    fn default() -> Self {
        Gradients {
            sums: vec![[0; CHANNELS]; WIDE * WIDE],
        }
    }
}

const WIDE: usize = WINDOW + 1;

impl Gradients {
    /// Computes the gradients of a window's grey pixels.
    pub(super) fn compute(&mut self, pixels: &[u8; WINDOW * WINDOW]) {
        let at = |column: usize, row: usize| i32::from(pixels[row * WINDOW + column]);
        // Twice the slope, also at the edges, where a neighbour is missing.
        let slope = |place: usize, at: &dyn Fn(usize) -> i32| match place {
            0 => 2 * (at(1) - at(0)),
            place if place == WINDOW - 1 => 2 * (at(place) - at(place - 1)),
            place => at(place + 1) - at(place - 1),
        };
        for row in 0..WINDOW {
            let mut sums = [0; CHANNELS];
            for column in 0..WINDOW {
                let across = slope(column, &|column| at(column, row));
                let down = slope(row, &|row| at(column, row));
                let by_down = if down < 0 { 2 } else { 0 };
                sums[by_down] += across;
                sums[by_down + 1] += across.abs();
                let by_across = if across < 0 { 6 } else { 4 };
                sums[by_across] += down;
                sums[by_across + 1] += down.abs();
                let above = self.sums[row * WIDE + column + 1];
                let here = &mut self.sums[(row + 1) * WIDE + column + 1];
                *here = std::array::from_fn(|channel| above[channel] + sums[channel]);
            }
        }
    }

    /// Appends the values of a patch, its cells row by row, normalised to length 1.
    fn describe(&self, patch: &Patch, values: &mut Vec<f32>) {
        let (width, height) = (patch.width / 2, patch.height / 2);
        let mut cells = [0_i32; VALUES_OF_PATCH];
        for (cell, values) in cells.chunks_exact_mut(CHANNELS).enumerate() {
            let left = patch.left + cell % 2 * width;
            let top = patch.top + cell / 2 * height;
            let at = |column: usize, row: usize| &self.sums[row * WIDE + column];
            let [a, b, c, d] = [
                at(left + width, top + height),
                at(left + width, top),
                at(left, top + height),
                at(left, top),
            ];
            for (channel, value) in values.iter_mut().enumerate() {
                *value = a[channel] - b[channel] - c[channel] + d[channel];
            }
        }
        let squares: f64 = cells.iter().map(|value| f64::from(*value).powi(2)).sum();
        let length = if squares == 0.0 {
            1.0
        } else {
            squares.sqrt() as f32
        };
        values.extend(cells.iter().map(|value| *value as f32 / length));
    }
}
