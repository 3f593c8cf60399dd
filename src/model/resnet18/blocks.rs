//! Residual blocks of the network on libtorch.

use std::collections::BTreeMap;

use tch::{Kind, Tensor};

use crate::model::{
    Error,
    batch_norm::BatchNorm,
    forward::Mode,
    precision::Precision,
    tensors::{channels_last, entry},
};

/// How a layer computes.
#[derive(Debug, Clone, Copy)]
pub(super) struct LayerMode {
    pub(super) precision: Precision,
    pub(super) is_frozen: bool,
}

/// Two 3×3 convolutions with a shortcut around them.
#[derive(Debug)]
pub(super) struct Block {
    stride: i64,
    first: ConvNorm,
    second: ConvNorm,
    downsample: Option<ConvNorm>,
}

impl Block {
    pub(super) fn new(
        state: &BTreeMap<String, Tensor>,
        prefix: &str,
        stride: i64,
        mode: LayerMode,
    ) -> Result<Self, Error> {
        let unit = |conv: &str, norm: &str| {
            let (conv, norm) = (format!("{prefix}.{conv}"), format!("{prefix}.{norm}"));
            ConvNorm::new(state, &conv, &norm, mode)
        };
        let has_downsample = state.contains_key(&format!("{prefix}.downsample.0.weight"));
        Ok(Block {
            stride,
            first: unit("conv1", "bn1")?,
            second: unit("conv2", "bn2")?,
            downsample: has_downsample
                .then(|| unit("downsample.0", "downsample.1"))
                .transpose()?,
        })
    }

    pub(super) fn forward(&self, input: &Tensor, mode: Mode) -> Result<Tensor, Error> {
        let inner = self.first.forward(input, self.stride, 1, mode)?.f_relu_()?;
        let mut sum = self.second.forward(&inner, 1, 1, mode)?;
        let shortcut = match &self.downsample {
            Some(unit) => unit.forward(input, self.stride, 0, mode)?,
            None => input.shallow_clone(),
        };
        // In place: neither the BatchNorm nor the convolution needs its output for the gradient.
        Ok(sum.f_add_(&shortcut)?.f_relu_()?)
    }
}

/// A convolution with its BatchNorm.
#[derive(Debug)]
pub(super) struct ConvNorm {
    weight: Tensor,
    kind: Kind,
    norm: Norm,
}

#[derive(Debug)]
enum Norm {
    Batch(BatchNorm),
    /// The bias that remains after folding the BatchNorm into the convolution's weight.
    Folded(Tensor),
}

impl ConvNorm {
    pub(super) fn new(
        state: &BTreeMap<String, Tensor>,
        conv: &str,
        norm: &str,
        mode: LayerMode,
    ) -> Result<Self, Error> {
        let weight = entry(state, &format!("{conv}.weight"));
        let norm = BatchNorm::new(state, norm);
        let kind = mode.precision.kind();
        if !mode.is_frozen || kind == Kind::Float {
            let norm = Norm::Batch(norm);
            return Ok(ConvNorm { weight, kind, norm });
        }
        let (weight, bias) = tch::no_grad(|| norm.fold_into(&weight))?;
        Ok(ConvNorm {
            weight: channels_last(&weight.f_to_kind(kind)?)?,
            kind,
            norm: Norm::Folded(bias.f_to_kind(kind)?),
        })
    }

    pub(super) fn forward(
        &self,
        input: &Tensor,
        stride: i64,
        padding: i64,
        mode: Mode,
    ) -> Result<Tensor, Error> {
        // In a trainable layer this is a copy, through which the gradient reaches the f32 weight.
        let weight = self.weight.f_to_kind(self.kind)?;
        let convolve = |bias: Option<&Tensor>| {
            let (stride, padding) = ([stride, stride], [padding, padding]);
            input.f_conv2d(&weight, bias, stride, padding, [1, 1], 1)
        };
        match &self.norm {
            Norm::Batch(norm) => norm.forward(&convolve(None)?, mode),
            Norm::Folded(bias) => Ok(convolve(Some(bias))?),
        }
    }
}
