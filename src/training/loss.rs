//! The training loss, on the scale on which the network learns ages.

use tch::{Kind, Reduction, Tensor};

use crate::model::{Error, checkpoint::LabelScale};

/// Loss function, averaged over a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LossKind {
    Mse,
    /// Huber loss divided by `beta` (Girshick, 2015, arXiv:1504.08083, equation 3, for `beta` 1),
    /// as `torch.nn.SmoothL1Loss`.
    SmoothL1,
    L1,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct LossSpec {
    pub(super) kind: LossKind,
    /// Error at which [`LossKind::SmoothL1`] becomes linear, on the scale of the targets.
    pub(super) beta: f64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Loss {
    pub(super) spec: LossSpec,
    /// Scale of the targets: age = output · scale + offset.
    pub(super) scale: LabelScale,
}

/// The network predicts years.
pub(super) const YEARS: LabelScale = LabelScale {
    scale: 1.0,
    offset: 0.0,
};

impl Loss {
    /// Returns the loss `[]` of outputs `[N]` for ages `[N]` in years.
    ///
    /// # Errors
    /// An error of libtorch.
    ///
    /// # Panics
    /// If the shapes differ: libtorch would silently broadcast `[N, 1]` against `[N]` to `[N, N]`.
    pub(super) fn forward(&self, output: &Tensor, ages: &Tensor) -> Result<Tensor, Error> {
        assert_eq!(
            output.size(),
            ages.size(),
            "predictions and ages must have the same shape"
        );
        let scaled;
        let targets = if self.scale == YEARS {
            ages
        } else {
            scaled = ages
                .f_sub_scalar(self.scale.offset)?
                .f_div_scalar(self.scale.scale)?;
            &scaled
        };
        Ok(match self.spec.kind {
            LossKind::Mse => output.f_sub(targets)?.f_square()?.f_mean(Kind::Float)?,
            LossKind::SmoothL1 => {
                output.f_smooth_l1_loss(targets, Reduction::Mean, self.spec.beta)?
            }
            LossKind::L1 => output.f_l1_loss(targets, Reduction::Mean)?,
        })
    }

    /// Returns ages `[N]` in years from outputs `[N]`, without gradients.
    ///
    /// # Errors
    /// An error of libtorch.
    pub(super) fn years(&self, output: &Tensor) -> Result<Tensor, Error> {
        let output = output.f_detach()?;
        if self.scale == YEARS {
            return Ok(output);
        }
        Ok(output
            .f_mul_scalar(self.scale.scale)?
            .f_add_scalar(self.scale.offset)?)
    }
}

/// Returns the scale on which the ages have mean 0 and standard deviation 1.
pub(super) fn standardised(ages: impl Iterator<Item = f64> + Clone) -> LabelScale {
    let count = ages.clone().count().max(1) as f64;
    let mean = ages.clone().sum::<f64>() / count;
    let variance = ages.map(|age| (age - mean).powi(2)).sum::<f64>() / count;
    LabelScale {
        // The deviation of equal ages is 0, which cannot be a divisor.
        scale: Some(variance.sqrt()).filter(|sd| *sd > 0.0).unwrap_or(1.0),
        offset: mean,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(kind: LossKind, beta: f64, scale: LabelScale) -> f64 {
        let spec = LossSpec { kind, beta };
        let loss = Loss { spec, scale };
        let output = Tensor::from_slice(&[1.0f32, 2.0, 4.0]);
        let ages = Tensor::from_slice(&[1.5f32, 5.0, 4.0]);
        loss.forward(&output, &ages).unwrap().double_value(&[])
    }

    /// Errors -0.5, -3 and 0.
    #[test]
    fn losses_match_a_hand_calculation() {
        let close = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-6, "{found}");
        close(value(LossKind::Mse, 1.0, YEARS), (0.25 + 9.0) / 3.0);
        close(value(LossKind::L1, 1.0, YEARS), 3.5 / 3.0);
        close(value(LossKind::SmoothL1, 1.0, YEARS), (0.125 + 2.5) / 3.0);
        close(value(LossKind::SmoothL1, 2.0, YEARS), (0.0625 + 2.0) / 3.0);
    }

    /// On a scale of 2 years around 1 the ages are 0.25, 2 and 1.5, and the errors 0.75, 0 and 2.5.
    #[test]
    fn targets_are_scaled_and_outputs_scaled_back() {
        let scale = LabelScale {
            scale: 2.0,
            offset: 1.0,
        };
        let expected = (0.5625 + 6.25) / 3.0;
        assert!((value(LossKind::Mse, 1.0, scale) - expected).abs() < 1e-6);
        let loss = Loss {
            spec: LossSpec {
                kind: LossKind::Mse,
                beta: 1.0,
            },
            scale,
        };
        let years = loss.years(&Tensor::from_slice(&[0.25f32, -1.0])).unwrap();
        assert_eq!(Vec::<f32>::try_from(years).unwrap(), [1.5, -1.0]);
    }

    #[test]
    fn standardised_ages_have_mean_0_and_deviation_1() {
        let scale = standardised([10.0, 20.0, 30.0, 40.0].into_iter());
        assert_eq!(scale.offset, 25.0);
        assert!((scale.scale - 125.0_f64.sqrt()).abs() < 1e-12);
        assert_eq!(standardised([30.0, 30.0].into_iter()).scale, 1.0);
    }
}
