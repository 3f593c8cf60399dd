//! Batch normalisation, alone and folded into the convolution before it.

use std::collections::BTreeMap;

use tch::Tensor;

use super::{Error, forward::Mode, tensors::entry};

/// torchvision's default.
pub(super) const EPSILON: f64 = 1e-5;
/// torchvision's default.
const MOMENTUM: f64 = 0.1;

#[derive(Debug)]
pub(super) struct BatchNorm {
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    batches: Tensor,
}

impl BatchNorm {
    pub(super) fn new(state: &BTreeMap<String, Tensor>, prefix: &str) -> Self {
        BatchNorm {
            weight: entry(state, &format!("{prefix}.weight")),
            bias: entry(state, &format!("{prefix}.bias")),
            running_mean: entry(state, &format!("{prefix}.running_mean")),
            running_var: entry(state, &format!("{prefix}.running_var")),
            batches: entry(state, &format!("{prefix}.num_batches_tracked")),
        }
    }

    /// Weight and bias of the convolution that equals a convolution with `weight` followed by this
    /// BatchNorm in eval mode.
    pub(super) fn fold_into(&self, weight: &Tensor) -> Result<(Tensor, Tensor), Error> {
        let deviation = self.running_var.f_add_scalar(EPSILON)?.f_sqrt()?;
        let scale = self.weight.f_div(&deviation)?;
        let bias = self.bias.f_sub(&self.running_mean.f_mul(&scale)?)?;
        Ok((weight.f_mul(&scale.f_view([-1, 1, 1, 1])?)?, bias))
    }

    pub(super) fn forward(&self, input: &Tensor, mode: Mode) -> Result<Tensor, Error> {
        if mode.is_counted() {
            // The clone shares its memory, so the stored counter changes.
            self.batches.shallow_clone().f_add_scalar_(1).map(drop)?;
        }
        let momentum = match mode {
            Mode::Train | Mode::Eval => MOMENTUM,
            Mode::TrainShard => 1.0,
        };
        Ok(input.f_batch_norm(
            Some(&self.weight),
            Some(&self.bias),
            Some(&self.running_mean),
            Some(&self.running_var),
            mode.is_training(),
            momentum,
            EPSILON,
            true,
        )?)
    }
}

/// Weight and bias of a convolution with its BatchNorm folded in, in f32 and without gradients.
pub(super) fn folded(
    state: &BTreeMap<String, Tensor>,
    conv: &str,
    norm: &str,
) -> Result<(Tensor, Tensor), Error> {
    let weight = entry(state, &format!("{conv}.weight"));
    tch::no_grad(|| BatchNorm::new(state, norm).fold_into(&weight))
}
