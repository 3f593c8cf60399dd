//! ResNet18 (He et al., 2015, arXiv:1512.03385, table 1) with one output, the age in years.
//!
//! Parameters and buffers have torchvision's names and shapes, so that weights move both ways unchanged. tch's own ResNet has one
//! train flag for all its BatchNorms, with which the running statistics of frozen layers drift; here each [`Layer`] is either trained or
//! frozen, and a frozen part runs in eval mode without gradients whatever the caller does.

use std::{cell::RefCell, collections::BTreeMap};

use tch::{Device, Kind, Tensor};

use super::{
    Error,
    fused::{self, Threads},
    precision::Precision,
    slices::{bits_mut, values_mut},
};

mod parts;

pub use parts::{Layer, TrainableFrom};

/// Whether the trained parts use the statistics of the batch or those learned before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Batch statistics in trained BatchNorms, whose running statistics move.
    Train,
    /// Running statistics everywhere.
    Eval,
}

/// What the network says of one image.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// The value, label scale not applied.
    pub value: f32,
    /// What each place of layer4 adds to it, row by row, where it was asked for; with the head's bias they sum up to the value.
    pub attribution: Option<Vec<f32>>,
}

/// Outputs that the device may not have computed yet.
#[derive(Debug)]
pub struct PendingOutputs {
    /// `[N]`.
    values: Tensor,
    /// For each of the first images what each place adds, where it was asked for.
    attributions: Vec<Option<Tensor>>,
}

impl PendingOutputs {
    /// Waits for the device.
    ///
    /// # Errors
    /// What the device failed with.
    pub fn finish(self) -> Result<Vec<Output>, Error> {
        let read = |tensor: Tensor| -> Result<Vec<f32>, Error> {
            Ok(Vec::try_from(tensor.f_to_device(Device::Cpu)?)?)
        };
        let values = read(self.values)?;
        let mut attributions = self.attributions.into_iter();
        let outputs = values.into_iter().map(|value| {
            let attribution = attributions.next().flatten().map(read).transpose()?;
            Ok(Output { value, attribution })
        });
        outputs.collect()
    }
}

/// Names and shapes of all parameters and buffers of a network with this many outputs, in torchvision's order.
pub fn layout(outputs: usize) -> Vec<(String, Vec<usize>)> {
    let mut entries = Vec::new();
    push_conv(&mut entries, "conv1", &[64, 3, 7, 7]);
    push_batch_norm(&mut entries, "bn1", 64);
    for (layer, (input, output)) in LAYERS.into_iter().enumerate() {
        for block in 0..2 {
            let prefix = format!("layer{}.{block}", layer + 1);
            let input = if block == 0 { input } else { output };
            push_conv(
                &mut entries,
                &format!("{prefix}.conv1"),
                &[output, input, 3, 3],
            );
            push_batch_norm(&mut entries, &format!("{prefix}.bn1"), output);
            push_conv(
                &mut entries,
                &format!("{prefix}.conv2"),
                &[output, output, 3, 3],
            );
            push_batch_norm(&mut entries, &format!("{prefix}.bn2"), output);
            if input != output {
                push_conv(
                    &mut entries,
                    &format!("{prefix}.downsample.0"),
                    &[output, input, 1, 1],
                );
                push_batch_norm(&mut entries, &format!("{prefix}.downsample.1"), output);
            }
        }
    }
    entries.push(("fc.weight".to_owned(), vec![outputs, 512]));
    entries.push(("fc.bias".to_owned(), vec![outputs]));
    entries
}

/// Whether the entry is learned by gradient, not a running statistic.
pub fn is_parameter(name: &str) -> bool {
    name.ends_with(".weight") || name.ends_with(".bias")
}

/// Input and output channels of layer1 to layer4.
const LAYERS: [(usize, usize); 4] = [(64, 64), (64, 128), (128, 256), (256, 512)];

fn push_conv(entries: &mut Vec<(String, Vec<usize>)>, name: &str, shape: &[usize]) {
    entries.push((format!("{name}.weight"), shape.to_vec()));
}

fn push_batch_norm(entries: &mut Vec<(String, Vec<usize>)>, name: &str, channels: usize) {
    for field in ["weight", "bias", "running_mean", "running_var"] {
        entries.push((format!("{name}.{field}"), vec![channels]));
    }
    entries.push((format!("{name}.num_batches_tracked"), Vec::new()));
}

/// The network over tensors that others may hold too, such as an optimizer.
#[derive(Debug)]
pub struct ResNet18 {
    trained: TrainableFrom,
    precision: Precision,
    /// The frozen layers again, where the processor is faster with them than libtorch.
    fused: Option<Fused>,
    stem: ConvNorm,
    layers: [[Block; 2]; 4],
    fc_weight: Tensor,
    fc_bias: Tensor,
}

impl ResNet18 {
    /// Builds the network over the tensors of [`layout`]; those of trained parts are shared, not copied.
    ///
    /// In 16 bits the convolutions compute in bf16, from f32 weights where they are trained; BatchNorms of frozen parts are folded into their
    /// convolutions. The head always computes in f32.
    ///
    /// # Errors
    /// Whatever libtorch refuses, such as a lack of memory.
    ///
    /// # Panics
    /// When a tensor is missing; callers check names and shapes where weights enter the program.
    pub fn new(
        state: &BTreeMap<String, Tensor>,
        trained: TrainableFrom,
        precision: Precision,
    ) -> Result<Self, Error> {
        let layer = |index: usize| {
            let stride = if index == 1 { 1 } else { 2 };
            let format = Format {
                precision,
                is_frozen: !trained.contains(BLOCK_LAYERS[index - 1]),
            };
            Ok::<_, Error>([
                Block::new(state, &format!("layer{index}.0"), stride, format)?,
                Block::new(state, &format!("layer{index}.1"), 1, format)?,
            ])
        };
        let format = Format {
            precision,
            is_frozen: !trained.contains(Layer::Bn1),
        };
        let is_on_processor = entry(state, "conv1.weight").device() == Device::Cpu;
        let fused = if format.is_frozen && is_on_processor {
            Fused::new(state, trained, precision)?
        } else {
            None
        };
        Ok(ResNet18 {
            trained,
            precision,
            fused,
            stem: ConvNorm::new(state, "conv1", "bn1", format)?,
            layers: [layer(1)?, layer(2)?, layer(3)?, layer(4)?],
            fc_weight: entry(state, "fc.weight"),
            fc_bias: entry(state, "fc.bias"),
        })
    }

    /// Predicts ages in years: normalised images `[N, 3, S, S]` in, `[N]` out.
    ///
    /// # Errors
    /// Whatever libtorch refuses, such as a wrong shape or a lack of memory.
    pub fn forward(&self, images: &Tensor, mode: Mode) -> Result<Tensor, Error> {
        self.forward_features(self.features(images, mode)?, mode)
    }

    /// The same without kernels of our own: they cannot be recorded, and not compared with themselves.
    pub(crate) fn without_fused_kernels(self) -> Self {
        ResNet18 {
            fused: None,
            ..self
        }
    }

    /// What the frozen layers make of normalised images: `[N, C, H, W]` as in [`feature_shape`], channels last, without gradients. It is a fixed function
    /// of each image as long as anything is frozen; else it is what the first layers make of them, with gradients.
    ///
    /// # Errors
    /// Whatever libtorch refuses, such as a wrong shape or a lack of memory.
    pub fn features(&self, images: &Tensor, mode: Mode) -> Result<Tensor, Error> {
        if let Some(fused) = &self.fused {
            return fused.features(images);
        }
        let images = images.f_to_kind(self.precision.kind())?;
        self.stem(&channels_last(&images)?, mode)
    }

    /// Predicts ages in years from what [`ResNet18::features`] returned; `[N]`.
    ///
    /// # Errors
    /// Whatever libtorch refuses, such as a wrong shape or a lack of memory.
    pub fn forward_features(&self, features: Tensor, mode: Mode) -> Result<Tensor, Error> {
        self.head(&self.trained_layers(features, mode)?)
    }

    /// From layer4's output to ages.
    fn head(&self, features: &Tensor) -> Result<Tensor, Error> {
        let pooled = features.f_adaptive_avg_pool2d([1, 1])?.f_flatten(1, -1)?;
        // The head always computes in f32: in bf16 an age near 40 would move in steps of a quarter of a year.
        let pooled = pooled.f_to_kind(Kind::Float)?;
        let ages = pooled.f_linear(&self.fc_weight, Some(&self.fc_bias))?;
        Ok(ages.f_squeeze_dim(1)?)
    }

    /// Predicts normalised images `[N, 3, S, S]` in eval mode, and says what each place of layer4 adds, for those images whose `explain` is there and true.
    /// On a GPU it returns as soon as the work is in its queue.
    ///
    /// # Errors
    /// Whatever libtorch refuses, such as a wrong shape or a lack of memory.
    pub fn forward_async(
        &self,
        images: &Tensor,
        explain: &[bool],
    ) -> Result<PendingOutputs, Error> {
        let features = self.trained_layers(self.features(images, Mode::Eval)?, Mode::Eval)?;
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
        let attributions = attributions.collect::<Result<_, Error>>()?;
        Ok(PendingOutputs {
            values,
            attributions,
        })
    }

    /// The frozen layers, without gradients.
    fn stem(&self, images: &Tensor, mode: Mode) -> Result<Tensor, Error> {
        let head_of_network = |mode: Mode| -> Result<Tensor, Error> {
            let train_norm = self.trained.contains(Layer::Bn1) && mode == Mode::Train;
            let mut normed = self.stem.forward(images, 2, 3, train_norm)?;
            Ok(normed
                .f_relu_()?
                .f_max_pool2d([3, 3], [2, 2], [1, 1], [1, 1], false)?)
        };
        if self.trained.contains(Layer::Bn1) {
            return head_of_network(mode);
        }
        tch::no_grad(|| {
            let mut features = head_of_network(Mode::Eval)?;
            for (part, layer) in BLOCK_LAYERS.into_iter().zip(&self.layers) {
                if !self.trained.contains(part) {
                    features = forward_layer(layer, &features, false)?;
                }
            }
            Ok(features)
        })
    }

    /// The layers that are trained.
    fn trained_layers(&self, mut features: Tensor, mode: Mode) -> Result<Tensor, Error> {
        for (part, layer) in BLOCK_LAYERS.into_iter().zip(&self.layers) {
            if self.trained.contains(part) {
                features = forward_layer(layer, &features, mode == Mode::Train)?;
            }
        }
        Ok(features)
    }
}

/// The frozen layers without libtorch.
#[derive(Debug)]
struct Fused {
    network: fused::Network,
    workspace: RefCell<fused::Workspace>,
    /// Of the features, whatever the network computes in.
    kind: Kind,
}

impl Fused {
    fn new(
        state: &BTreeMap<String, Tensor>,
        trained: TrainableFrom,
        precision: Precision,
    ) -> Result<Option<Self>, Error> {
        let frozen = BLOCK_LAYERS.into_iter();
        let layers = frozen.take_while(|part| !trained.contains(*part)).count();
        let network = match precision {
            Precision::Bf16 => fused::Network::fastest(state, layers)?,
            Precision::F32 | Precision::F16 | Precision::F16Weights => {
                fused::Network::new(precision, state, layers)?
            }
        };
        Ok(network.map(|network| Fused {
            network,
            workspace: RefCell::new(fused::Workspace::new()),
            kind: precision.kind(),
        }))
    }

    fn features(&self, images: &Tensor) -> Result<Tensor, Error> {
        let (count, _, side, _) = images.size4()?;
        let mut images = images.f_to_kind(Kind::Float)?.f_contiguous()?;
        let values = values_mut(&mut images);
        let of_image = (values.len() / count.max(1) as usize).max(1);
        let images: Vec<&[f32]> = values.chunks_exact(of_image).collect();
        let mut workspace = self.workspace.borrow_mut();
        let threads = Threads::of_libtorch();
        let features = self
            .network
            .features(&images, side as usize, threads, &mut workspace)?;
        let (side, channels) = (features.side as i64, features.channels as i64);
        let shape = [count, side, side, channels];
        let made = |kind| Tensor::f_empty(shape, (kind, Device::Cpu));
        let in_16_bits = |kind| {
            let mut pixels = made(kind)?;
            bits_mut(&mut pixels).copy_from_slice(features.values);
            pixels.f_to_kind(Kind::BFloat16)
        };
        let pixels = match self.network.precision() {
            Precision::Bf16 => in_16_bits(Kind::BFloat16)?,
            Precision::F16 => in_16_bits(Kind::Half)?,
            precision @ (Precision::F32 | Precision::F16Weights) => {
                let mut pixels = made(Kind::Float)?;
                precision.widen_all(features.values, values_mut(&mut pixels));
                pixels.f_to_kind(self.kind)?
            }
        };
        Ok(pixels.f_permute([0, 3, 1, 2])?)
    }
}

/// Channels, height and width of [`ResNet18::features`] for images of this side; `None` when nothing that is worth keeping is frozen.
pub fn feature_shape(trained: TrainableFrom, input_size: u32) -> Option<[u32; 3]> {
    let halved = |side: u32, times: u32| (0..times).fold(side, |side, _| side.div_ceil(2));
    // conv1 and the pooling behind bn1 halve the side, and so does each layer but the first.
    let (channels, halvings) = match trained.first {
        Layer::Conv1 | Layer::Bn1 => return None,
        Layer::Layer1 | Layer::Layer2 => (64, 2),
        Layer::Layer3 => (128, 3),
        Layer::Layer4 => (256, 4),
        Layer::Fc => (512, 5),
    };
    let side = halved(input_size, halvings);
    Some([channels, side, side])
}

/// The parts that have blocks.
pub(super) const BLOCK_LAYERS: [Layer; 4] =
    [Layer::Layer1, Layer::Layer2, Layer::Layer3, Layer::Layer4];

fn forward_layer(layer: &[Block; 2], input: &Tensor, train: bool) -> Result<Tensor, Error> {
    let middle = layer[0].forward(input, train)?;
    layer[1].forward(&middle, train)
}

/// How a part computes.
#[derive(Debug, Clone, Copy)]
struct Format {
    precision: Precision,
    is_frozen: bool,
}

/// Two 3×3 convolutions around which the input is added.
#[derive(Debug)]
struct Block {
    stride: i64,
    first: ConvNorm,
    second: ConvNorm,
    downsample: Option<ConvNorm>,
}

impl Block {
    fn new(
        state: &BTreeMap<String, Tensor>,
        prefix: &str,
        stride: i64,
        format: Format,
    ) -> Result<Self, Error> {
        let unit = |conv: &str, norm: &str| {
            let (conv, norm) = (format!("{prefix}.{conv}"), format!("{prefix}.{norm}"));
            ConvNorm::new(state, &conv, &norm, format)
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

    fn forward(&self, input: &Tensor, train: bool) -> Result<Tensor, Error> {
        let inner = self
            .first
            .forward(input, self.stride, 1, train)?
            .f_relu_()?;
        let mut sum = self.second.forward(&inner, 1, 1, train)?;
        let shortcut = match &self.downsample {
            Some(unit) => unit.forward(input, self.stride, 0, train)?,
            None => input.shallow_clone(),
        };
        // In place: the sum is what the BatchNorm or the convolution returned, which neither needs for its gradient.
        Ok(sum.f_add_(&shortcut)?.f_relu_()?)
    }
}

/// A convolution and the BatchNorm behind it.
#[derive(Debug)]
struct ConvNorm {
    weight: Tensor,
    kind: Kind,
    norm: Norm,
}

#[derive(Debug)]
enum Norm {
    /// As it is trained.
    Batch(BatchNorm),
    /// Folded into the convolution's weight, with this bias left over.
    Folded(Tensor),
}

impl ConvNorm {
    fn new(
        state: &BTreeMap<String, Tensor>,
        conv: &str,
        norm: &str,
        format: Format,
    ) -> Result<Self, Error> {
        let weight = entry(state, &format!("{conv}.weight"));
        let norm = BatchNorm::new(state, norm);
        let kind = format.precision.kind();
        if !format.is_frozen || kind == Kind::Float {
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

    fn forward(
        &self,
        input: &Tensor,
        stride: i64,
        padding: i64,
        train: bool,
    ) -> Result<Tensor, Error> {
        // Of a trained part a copy, through which the gradient reaches the weight in f32.
        let weight = self.weight.f_to_kind(self.kind)?;
        let convolve = |bias: Option<&Tensor>| {
            let (stride, padding) = ([stride, stride], [padding, padding]);
            input.f_conv2d(&weight, bias, stride, padding, [1, 1], 1)
        };
        match &self.norm {
            Norm::Batch(norm) => norm.forward(&convolve(None)?, train),
            Norm::Folded(bias) => Ok(convolve(Some(bias))?),
        }
    }
}

/// torchvision's, in every BatchNorm.
const EPSILON: f64 = 1e-5;

/// Batch normalisation with torchvision's momentum 0.1 and epsilon 1e-5.
#[derive(Debug)]
struct BatchNorm {
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    batches: Tensor,
}

impl BatchNorm {
    fn new(state: &BTreeMap<String, Tensor>, prefix: &str) -> Self {
        BatchNorm {
            weight: entry(state, &format!("{prefix}.weight")),
            bias: entry(state, &format!("{prefix}.bias")),
            running_mean: entry(state, &format!("{prefix}.running_mean")),
            running_var: entry(state, &format!("{prefix}.running_var")),
            batches: entry(state, &format!("{prefix}.num_batches_tracked")),
        }
    }

    /// The weight and bias with which a convolution alone computes what this makes of its output in eval mode.
    fn fold_into(&self, weight: &Tensor) -> Result<(Tensor, Tensor), Error> {
        let deviation = self.running_var.f_add_scalar(EPSILON)?.f_sqrt()?;
        let scale = self.weight.f_div(&deviation)?;
        let bias = self.bias.f_sub(&self.running_mean.f_mul(&scale)?)?;
        Ok((weight.f_mul(&scale.f_view([-1, 1, 1, 1])?)?, bias))
    }

    fn forward(&self, input: &Tensor, train: bool) -> Result<Tensor, Error> {
        if train {
            // A shared handle, so that the count that is saved moves.
            self.batches.shallow_clone().f_add_scalar_(1).map(drop)?;
        }
        Ok(input.f_batch_norm(
            Some(&self.weight),
            Some(&self.bias),
            Some(&self.running_mean),
            Some(&self.running_var),
            train,
            0.1,
            EPSILON,
            true,
        )?)
    }
}

/// The weight and bias with which the convolution alone computes what the BatchNorm makes of its output in eval mode; both without gradients, in f32.
pub(super) fn folded(
    state: &BTreeMap<String, Tensor>,
    conv: &str,
    norm: &str,
) -> Result<(Tensor, Tensor), Error> {
    let weight = entry(state, &format!("{conv}.weight"));
    tch::no_grad(|| BatchNorm::new(state, norm).fold_into(&weight))
}

fn entry(state: &BTreeMap<String, Tensor>, name: &str) -> Tensor {
    match state.get(name) {
        Some(tensor) => tensor.shallow_clone(),
        None => panic!(
            "weights without {name} reached the network; they are checked against the layout on entry"
        ),
    }
}

/// The same values with the channels of a pixel side by side in memory, which oneDNN and cuDNN compute faster on; the shape stays.
pub(crate) fn channels_last(images: &Tensor) -> Result<Tensor, Error> {
    let pixels = images.f_permute([0, 2, 3, 1])?.f_contiguous()?;
    Ok(pixels.f_permute([0, 3, 1, 2])?)
}

#[cfg(test)]
pub(crate) mod tests;
