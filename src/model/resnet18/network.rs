//! The forward pass on libtorch.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};

use super::{
    blocks::{Block, ConvNorm, LayerMode},
    frozen::FrozenLayers,
};
use crate::model::{
    Error,
    forward::{Mode, PendingOutputs},
    layers::{Layer, TrainableFrom},
    precision::Precision,
    tensors::{channels_last, entry},
};

/// The network over tensors that others, such as an optimizer, may share.
#[derive(Debug)]
pub(crate) struct ResNet18 {
    trainable: TrainableFrom,
    precision: Precision,
    /// The frozen layers on the fused kernels, where these are faster than libtorch.
    pub(super) fused: Option<FrozenLayers>,
    stem: ConvNorm,
    layers: [[Block; 2]; 4],
    fc_weight: Tensor,
    fc_bias: Tensor,
}

impl ResNet18 {
    /// Builds the network over the tensors of [`layout`](super::layout); those of trainable layers
    /// are shared, not copied.
    ///
    /// In 16 bits the convolutions of trainable layers cast their f32 weights, and BatchNorms of
    /// frozen layers are folded into their convolutions. The head always computes in f32.
    ///
    /// # Errors
    /// A failure of libtorch, such as out of memory.
    ///
    /// # Panics
    /// If a tensor is missing; names and shapes are checked where weights enter the program.
    pub(crate) fn new(
        state: &BTreeMap<String, Tensor>,
        trainable: TrainableFrom,
        precision: Precision,
    ) -> Result<Self, Error> {
        let mode_of = |layer: Layer| LayerMode {
            precision,
            is_frozen: !trainable.contains(layer),
        };
        let blocks = |index: usize| {
            let stride = if index == 0 { 1 } else { 2 };
            let layer = Layer::WITH_BLOCKS[index];
            let (name, mode) = (layer.name(), mode_of(layer));
            Ok::<_, Error>([
                Block::new(state, &format!("{name}.0"), stride, mode)?,
                Block::new(state, &format!("{name}.1"), 1, mode)?,
            ])
        };
        let stem_mode = mode_of(Layer::Bn1);
        let is_on_cpu = entry(state, "conv1.weight").device() == Device::Cpu;
        let fused = if stem_mode.is_frozen && is_on_cpu {
            FrozenLayers::new(state, trainable, precision)?
        } else {
            None
        };
        Ok(ResNet18 {
            trainable,
            precision,
            fused,
            stem: ConvNorm::new(state, "conv1", "bn1", stem_mode)?,
            layers: [blocks(0)?, blocks(1)?, blocks(2)?, blocks(3)?],
            fc_weight: entry(state, "fc.weight"),
            fc_bias: entry(state, "fc.bias"),
        })
    }

    /// Disables the fused kernels, for tracing and as a numerical reference.
    pub(crate) fn without_fused_kernels(self) -> Self {
        ResNet18 {
            fused: None,
            ..self
        }
    }

    pub(crate) fn precision(&self) -> Precision {
        self.precision
    }

    /// Predicts ages in years: normalised images `[N, 3, S, S]` in, `[N]` out.
    ///
    /// # Errors
    /// A failure of libtorch, such as a wrong shape or out of memory.
    pub(crate) fn forward(&self, images: &Tensor, mode: Mode) -> Result<Tensor, Error> {
        self.forward_features(self.features(images, mode)?, mode)
    }

    /// Computes the features of normalised images in the frozen layers: `[N, C, H, W]` as in
    /// [`TrainableFrom::feature_shape`], channels last, without gradients. The result depends on
    /// nothing but the image as long as any layer is frozen; otherwise it is the output of the
    /// stem, with gradients.
    ///
    /// # Errors
    /// A failure of libtorch, such as a wrong shape or out of memory.
    pub(crate) fn features(&self, images: &Tensor, mode: Mode) -> Result<Tensor, Error> {
        if let Some(fused) = &self.fused {
            return fused.features(images);
        }
        let images = images.f_to_kind(self.precision.kind())?;
        self.frozen_layers(&channels_last(&images)?, mode)
    }

    /// Predicts ages in years, `[N]`, from the result of [`ResNet18::features`].
    ///
    /// # Errors
    /// A failure of libtorch, such as a wrong shape or out of memory.
    pub(crate) fn forward_features(&self, features: Tensor, mode: Mode) -> Result<Tensor, Error> {
        self.head(&self.trainable_layers(features, mode)?)
    }

    /// Predicts normalised images `[N, 3, S, S]` in eval mode, with attributions for the images
    /// whose `explain` is present and true. On a GPU it returns as soon as the work is queued.
    ///
    /// # Errors
    /// A failure of libtorch, such as a wrong shape or out of memory.
    pub(crate) fn forward_async(
        &self,
        images: &Tensor,
        explain: &[bool],
    ) -> Result<PendingOutputs, Error> {
        let features = self.trainable_layers(self.features(images, Mode::Eval)?, Mode::Eval)?;
        let values = self.head(&features)?;
        let attribution = |index: usize| -> Result<Tensor, Error> {
            let cells = features.f_get(index as i64)?.f_to_kind(Kind::Float)?;
            let (channels, rows, columns) = cells.size3()?;
            let cells = cells.f_reshape([channels, rows * columns])?;
            let sums = self.fc_weight.f_matmul(&cells)?.f_squeeze_dim(0)?;
            Ok(sums.f_div_scalar((rows * columns) as f64)?)
        };
        let attributions = explain
            .iter()
            .enumerate()
            .map(|(index, explain)| explain.then(|| attribution(index)).transpose());
        Ok(PendingOutputs {
            values,
            attributions: attributions.collect::<Result<_, Error>>()?,
        })
    }

    /// The frozen layers without gradients, or the stem alone, with gradients, if all layers are
    /// trainable.
    fn frozen_layers(&self, images: &Tensor, mode: Mode) -> Result<Tensor, Error> {
        if self.trainable.contains(Layer::Bn1) {
            return self.stem(images, mode);
        }
        tch::no_grad(|| {
            let mut features = self.stem(images, Mode::Eval)?;
            for (layer, blocks) in Layer::WITH_BLOCKS.into_iter().zip(&self.layers) {
                if !self.trainable.contains(layer) {
                    features = forward_blocks(blocks, &features, Mode::Eval)?;
                }
            }
            Ok(features)
        })
    }

    /// conv1, bn1, ReLU and max pooling.
    fn stem(&self, images: &Tensor, mode: Mode) -> Result<Tensor, Error> {
        let mut normed = self.stem.forward(images, 2, 3, mode)?;
        Ok(normed
            .f_relu_()?
            .f_max_pool2d([3, 3], [2, 2], [1, 1], [1, 1], false)?)
    }

    fn trainable_layers(&self, mut features: Tensor, mode: Mode) -> Result<Tensor, Error> {
        for (layer, blocks) in Layer::WITH_BLOCKS.into_iter().zip(&self.layers) {
            if self.trainable.contains(layer) {
                features = forward_blocks(blocks, &features, mode)?;
            }
        }
        Ok(features)
    }

    /// Mean pooling and the linear layer.
    fn head(&self, features: &Tensor) -> Result<Tensor, Error> {
        let pooled = features.f_adaptive_avg_pool2d([1, 1])?.f_flatten(1, -1)?;
        // Always in f32: in bf16 an age near 40 would move in steps of a quarter of a year.
        let pooled = pooled.f_to_kind(Kind::Float)?;
        let ages = pooled.f_linear(&self.fc_weight, Some(&self.fc_bias))?;
        Ok(ages.f_squeeze_dim(1)?)
    }
}

fn forward_blocks(blocks: &[Block; 2], input: &Tensor, mode: Mode) -> Result<Tensor, Error> {
    let middle = blocks[0].forward(input, mode)?;
    blocks[1].forward(&middle, mode)
}
