//! ResNet18 (He et al., 2015, arXiv:1512.03385, table 1) with one output, the age in years.
//!
//! Parameters and buffers have torchvision's names and shapes, so that weights move both ways unchanged. tch's own ResNet has one
//! train flag for all its BatchNorms, with which the running statistics of frozen layers drift; here each [`Part`] is either trained or
//! frozen, and a frozen part runs in eval mode without gradients whatever the caller does.

use std::collections::BTreeMap;

use tch::{Kind, Tensor};

use super::Error;

/// The network's parts in the order in which an image passes through them; each is trained whole or not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The 7×7 convolution at the input.
    Conv1,
    /// The BatchNorm behind it.
    Bn1,
    /// 64 channels.
    Layer1,
    /// 128 channels.
    Layer2,
    /// 256 channels.
    Layer3,
    /// 512 channels.
    Layer4,
    /// The linear head, 512 to 1.
    Fc,
}

impl Part {
    /// All parts in order.
    pub const ALL: [Part; 7] = [
        Part::Conv1,
        Part::Bn1,
        Part::Layer1,
        Part::Layer2,
        Part::Layer3,
        Part::Layer4,
        Part::Fc,
    ];

    /// The prefix of its parameters' names.
    pub fn name(self) -> &'static str {
        match self {
            Part::Conv1 => "conv1",
            Part::Bn1 => "bn1",
            Part::Layer1 => "layer1",
            Part::Layer2 => "layer2",
            Part::Layer3 => "layer3",
            Part::Layer4 => "layer4",
            Part::Fc => "fc",
        }
    }
}

/// The trained parts: `first` and all that follow. What lies before is frozen.
///
/// Gradients flow backward from the output, so a frozen part behind a trained one would cost as much as a trained one and save nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trained {
    first: Part,
}

impl Trained {
    /// layer4 and fc.
    pub const DEFAULT: Trained = Trained {
        first: Part::Layer4,
    };

    /// Reads names such as `["layer4", "fc"]` or `["ALL"]`.
    ///
    /// # Errors
    /// A name that is no part, no name at all, or parts that do not reach to the head without a gap.
    pub fn parse<S: AsRef<str>>(names: &[S]) -> Result<Self, Error> {
        let known = || {
            let names: Vec<_> = Part::ALL.iter().map(|part| part.name()).collect();
            names.join(", ")
        };
        let mut wanted = Vec::new();
        for name in names {
            let name = name.as_ref();
            if name.eq_ignore_ascii_case("all") {
                return Ok(Trained { first: Part::Conv1 });
            }
            let part = Part::ALL.into_iter().find(|part| part.name() == name);
            wanted.push(part.ok_or_else(|| {
                Error::Trainable(format!(
                    "{name:?} is no part of the network; the parts are {}, and ALL",
                    known()
                ))
            })?);
        }
        let first = wanted.iter().min().copied().ok_or_else(|| {
            Error::Trainable(format!(
                "no part is named; the parts are {}, and ALL",
                known()
            ))
        })?;
        let gap = Part::ALL
            .into_iter()
            .find(|part| *part > first && !wanted.contains(part));
        if let Some(gap) = gap {
            return Err(Error::Trainable(format!(
                "{} is trained but {}, which follows it, is not; add {} or leave {} out",
                first.name(),
                gap.name(),
                gap.name(),
                first.name()
            )));
        }
        Ok(Trained { first })
    }

    /// Whether the part is trained.
    pub fn contains(self, part: Part) -> bool {
        part >= self.first
    }

    /// Whether the parameter or buffer of this name belongs to a trained part.
    pub fn contains_name(self, name: &str) -> bool {
        let prefix = name.split('.').next().unwrap_or(name);
        let part = Part::ALL.into_iter().find(|part| part.name() == prefix);
        part.is_some_and(|part| self.contains(part))
    }

    /// The names of the trained parts.
    pub fn names(self) -> Vec<String> {
        let trained = Part::ALL.into_iter().filter(|part| self.contains(*part));
        trained.map(|part| part.name().to_owned()).collect()
    }
}

/// Whether the trained parts use the statistics of the batch or those learned before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Batch statistics in trained BatchNorms, whose running statistics move.
    Train,
    /// Running statistics everywhere.
    Eval,
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
    trained: Trained,
    stem_conv: Tensor,
    stem_norm: BatchNorm,
    layers: [[Block; 2]; 4],
    fc_weight: Tensor,
    fc_bias: Tensor,
}

impl ResNet18 {
    /// Builds the network over the tensors of [`layout`]; they are shared, not copied.
    ///
    /// # Panics
    /// When a tensor is missing; callers check names and shapes where weights enter the program.
    pub fn new(state: &BTreeMap<String, Tensor>, trained: Trained) -> Self {
        let layer = |index: usize| {
            let stride = if index == 1 { 1 } else { 2 };
            [
                Block::new(state, &format!("layer{index}.0"), stride),
                Block::new(state, &format!("layer{index}.1"), 1),
            ]
        };
        ResNet18 {
            trained,
            stem_conv: entry(state, "conv1.weight"),
            stem_norm: BatchNorm::new(state, "bn1"),
            layers: [layer(1), layer(2), layer(3), layer(4)],
            fc_weight: entry(state, "fc.weight"),
            fc_bias: entry(state, "fc.bias"),
        }
    }

    /// Predicts ages in years: normalised images `[N, 3, S, S]` in, `[N]` out.
    ///
    /// # Errors
    /// Whatever libtorch refuses, such as a wrong shape or a lack of memory.
    pub fn forward(&self, images: &Tensor, mode: Mode) -> Result<Tensor, Error> {
        let features = self.stem(&channels_last(images)?, mode)?;
        let features = self.trained_layers(features, mode)?;
        let pooled = features.f_adaptive_avg_pool2d([1, 1])?.f_flatten(1, -1)?;
        // The head always computes in f32: in bf16 an age near 40 would move in steps of a quarter of a year.
        let pooled = pooled.f_to_kind(Kind::Float)?;
        let ages = pooled.f_linear(&self.fc_weight, Some(&self.fc_bias))?;
        Ok(ages.f_squeeze_dim(1)?)
    }

    /// The frozen layers, without gradients.
    fn stem(&self, images: &Tensor, mode: Mode) -> Result<Tensor, Error> {
        let head_of_network = |mode: Mode| -> Result<Tensor, Error> {
            let convolved = convolve(images, &self.stem_conv, 2, 3)?;
            let train_norm = self.trained.contains(Part::Bn1) && mode == Mode::Train;
            let mut normed = self.stem_norm.forward(&convolved, train_norm)?;
            Ok(normed
                .f_relu_()?
                .f_max_pool2d([3, 3], [2, 2], [1, 1], [1, 1], false)?)
        };
        if self.trained.contains(Part::Bn1) {
            return head_of_network(mode);
        }
        tch::no_grad(|| {
            let mut features = head_of_network(Mode::Eval)?;
            for (part, layer) in LAYER_PARTS.into_iter().zip(&self.layers) {
                if !self.trained.contains(part) {
                    features = forward_layer(layer, &features, false)?;
                }
            }
            Ok(features)
        })
    }

    /// The layers that are trained.
    fn trained_layers(&self, mut features: Tensor, mode: Mode) -> Result<Tensor, Error> {
        for (part, layer) in LAYER_PARTS.into_iter().zip(&self.layers) {
            if self.trained.contains(part) {
                features = forward_layer(layer, &features, mode == Mode::Train)?;
            }
        }
        Ok(features)
    }
}

const LAYER_PARTS: [Part; 4] = [Part::Layer1, Part::Layer2, Part::Layer3, Part::Layer4];

fn forward_layer(layer: &[Block; 2], input: &Tensor, train: bool) -> Result<Tensor, Error> {
    let middle = layer[0].forward(input, train)?;
    layer[1].forward(&middle, train)
}

/// Two 3×3 convolutions around which the input is added.
#[derive(Debug)]
struct Block {
    stride: i64,
    conv1: Tensor,
    norm1: BatchNorm,
    conv2: Tensor,
    norm2: BatchNorm,
    downsample: Option<(Tensor, BatchNorm)>,
}

impl Block {
    fn new(state: &BTreeMap<String, Tensor>, prefix: &str, stride: i64) -> Self {
        let downsample = state.get(&format!("{prefix}.downsample.0.weight"));
        Block {
            stride,
            conv1: entry(state, &format!("{prefix}.conv1.weight")),
            norm1: BatchNorm::new(state, &format!("{prefix}.bn1")),
            conv2: entry(state, &format!("{prefix}.conv2.weight")),
            norm2: BatchNorm::new(state, &format!("{prefix}.bn2")),
            downsample: downsample.map(|conv| {
                let norm = BatchNorm::new(state, &format!("{prefix}.downsample.1"));
                (conv.shallow_clone(), norm)
            }),
        }
    }

    fn forward(&self, input: &Tensor, train: bool) -> Result<Tensor, Error> {
        let inner = convolve(input, &self.conv1, self.stride, 1)?;
        let inner = self.norm1.forward(&inner, train)?.f_relu_()?;
        let inner = convolve(&inner, &self.conv2, 1, 1)?;
        let inner = self.norm2.forward(&inner, train)?;
        let sum = match &self.downsample {
            Some((conv, norm)) => {
                let shortcut = norm.forward(&convolve(input, conv, self.stride, 0)?, train)?;
                inner.f_add(&shortcut)?
            }
            None => inner.f_add(input)?,
        };
        let mut sum = sum;
        Ok(sum.f_relu_()?)
    }
}

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
            1e-5,
            true,
        )?)
    }
}

fn entry(state: &BTreeMap<String, Tensor>, name: &str) -> Tensor {
    match state.get(name) {
        Some(tensor) => tensor.shallow_clone(),
        None => panic!(
            "weights without {name} reached the network; they are checked against the layout on entry"
        ),
    }
}

fn convolve(input: &Tensor, weight: &Tensor, stride: i64, padding: i64) -> Result<Tensor, Error> {
    Ok(input.f_conv2d(
        weight,
        None::<&Tensor>,
        [stride, stride],
        [padding, padding],
        [1, 1],
        1,
    )?)
}

/// The same images with the channels of a pixel side by side in memory, which oneDNN and cuDNN compute faster on; the shape stays.
fn channels_last(images: &Tensor) -> Result<Tensor, Error> {
    let pixels = images.f_permute([0, 2, 3, 1])?.f_contiguous()?;
    Ok(pixels.f_permute([0, 3, 1, 2])?)
}

#[cfg(test)]
pub(crate) mod tests;
