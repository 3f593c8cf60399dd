//! Weights of layers that absorb the layer after them, computed in f64.

use crate::model::{batch_norm::EPSILON, checkpoint::LabelScale};

/// A layer's weight and bias.
#[derive(Debug, PartialEq)]
pub(super) struct Folded {
    pub(super) weight: Vec<f32>,
    pub(super) bias: Vec<f32>,
}

/// Parameters and statistics of a BatchNorm, one value for each channel.
pub(super) struct Norm {
    pub(super) weight: Vec<f32>,
    pub(super) bias: Vec<f32>,
    pub(super) running_mean: Vec<f32>,
    pub(super) running_var: Vec<f32>,
}

impl Norm {
    /// The convolution that equals the one with `weight`, output channels first, followed by this
    /// BatchNorm in eval mode.
    pub(super) fn fold_into(&self, weight: &[f32]) -> Folded {
        let channels = self.weight.len();
        let per_channel = weight.len() / channels;
        let mut folded = Folded {
            weight: Vec::with_capacity(weight.len()),
            bias: Vec::with_capacity(channels),
        };
        for (channel, filter) in weight.chunks(per_channel).enumerate() {
            let deviation = (f64::from(self.running_var[channel]) + EPSILON).sqrt();
            let scale = f64::from(self.weight[channel]) / deviation;
            let scaled = filter
                .iter()
                .map(|value| (f64::from(*value) * scale) as f32);
            folded.weight.extend(scaled);
            let shift = f64::from(self.running_mean[channel]) * scale;
            folded
                .bias
                .push((f64::from(self.bias[channel]) - shift) as f32);
        }
        folded
    }
}

/// The head that outputs ages in years instead of values on the scale of the labels.
pub(super) fn scaled_head(weight: &[f32], bias: &[f32], label: LabelScale) -> Folded {
    let scaled = |value: &f32| f64::from(*value) * label.scale;
    Folded {
        weight: weight.iter().map(|value| scaled(value) as f32).collect(),
        bias: bias
            .iter()
            .map(|value| (scaled(value) + label.offset) as f32)
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_convolution_absorbs_its_batch_norm() {
        // By hand: the deviations are sqrt(4) = 2 and sqrt(0.25) = 0.5, so the scales are
        // 3 / 2 = 1.5 and -1 / 0.5 = -2, and the biases 1 - 5 * 1.5 = -6.5 and 0.5 - 3 * -2 = 6.5.
        let norm = Norm {
            weight: vec![3.0, -1.0],
            bias: vec![1.0, 0.5],
            running_mean: vec![5.0, 3.0],
            running_var: vec![4.0 - 1e-5, 0.25 - 1e-5],
        };
        let folded = norm.fold_into(&[2.0, 4.0, 0.0, 10.0, 20.0, -30.0]);
        let expected = [3.0, 6.0, 0.0, -20.0, -40.0, 60.0];
        for (found, expected) in folded.weight.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-5, "{:?}", folded.weight);
        }
        for (found, expected) in folded.bias.iter().zip([-6.5, 6.5]) {
            assert!((found - expected).abs() < 1e-6, "{:?}", folded.bias);
        }
        assert_eq!((folded.weight.len(), folded.bias.len()), (6, 2));
    }

    #[test]
    fn the_head_outputs_years() {
        let label = LabelScale {
            scale: 20.0,
            offset: 33.0,
        };
        // 20 * (0.5 x + 0.25) + 33 = 10 x + 38.
        let head = scaled_head(&[0.5, -0.125], &[0.25], label);
        assert_eq!(head.weight, [10.0, -2.5]);
        assert_eq!(head.bias, [38.0]);
    }
}
