//! The ResNet18 as ONNX operators.

use super::{
    fold::{Norm, scaled_head},
    nodes::{Nodes, Window},
};
use crate::model::{
    checkpoint::LabelScale,
    layers::Layer,
    weights::{StateDict, TensorData},
};

/// Appends the network, whose input is the value `images` and whose output, ages in years `[N]`, is
/// the value `output`.
///
/// # Panics
/// If a tensor is missing; the caller checks the state against the layout.
pub(super) fn append(
    nodes: &mut Nodes,
    state: &StateDict,
    label: LabelScale,
    images: &str,
    output: &str,
) {
    let mut network = Network { nodes, state };
    let stem = Window {
        kernel: 7,
        stride: 2,
        padding: 3,
    };
    let normed = network.conv("conv1", "bn1", images, stem);
    let active = network.nodes.relu("relu", &normed);
    let halving = Window {
        kernel: 3,
        stride: 2,
        padding: 1,
    };
    let mut features = network.nodes.max_pool("maxpool", &active, halving);
    for (index, layer) in Layer::WITH_BLOCKS.into_iter().enumerate() {
        let stride = if index == 0 { 1 } else { 2 };
        let name = layer.name();
        features = network.block(&format!("{name}.0"), &features, stride);
        features = network.block(&format!("{name}.1"), &features, 1);
    }
    let pooled = network.nodes.mean_of_channels(&features);
    let head = scaled_head(
        &network.values("fc.weight"),
        &network.values("fc.bias"),
        label,
    );
    let years = network.nodes.linear("fc", &pooled, &head);
    // As in `LabelScale::age`: an age is never negative.
    let ages = network.nodes.relu("years", &years);
    network.nodes.squeeze(output, &ages);
}

struct Network<'a> {
    nodes: &'a mut Nodes,
    state: &'a StateDict,
}

impl Network<'_> {
    /// Two 3×3 convolutions with a shortcut around them.
    fn block(&mut self, prefix: &str, input: &str, stride: i64) -> String {
        let unit = |part: &str| format!("{prefix}.{part}");
        let first = Window {
            kernel: 3,
            stride,
            padding: 1,
        };
        let second = Window { stride: 1, ..first };
        let inner = self.conv(&unit("conv1"), &unit("bn1"), input, first);
        let inner = self.nodes.relu(&unit("relu1"), &inner);
        let inner = self.conv(&unit("conv2"), &unit("bn2"), &inner, second);
        let downsample = unit("downsample.0");
        let shortcut = if self.state.contains_key(&format!("{downsample}.weight")) {
            let window = Window {
                kernel: 1,
                stride,
                padding: 0,
            };
            self.conv(&downsample, &unit("downsample.1"), input, window)
        } else {
            input.to_owned()
        };
        let sum = self.nodes.add(&unit("add"), &inner, &shortcut);
        self.nodes.relu(&unit("relu2"), &sum)
    }

    /// A convolution with its BatchNorm folded in.
    fn conv(&mut self, name: &str, norm: &str, input: &str, window: Window) -> String {
        let weight = self.tensor(&format!("{name}.weight"));
        let norm = Norm {
            weight: self.values(&format!("{norm}.weight")),
            bias: self.values(&format!("{norm}.bias")),
            running_mean: self.values(&format!("{norm}.running_mean")),
            running_var: self.values(&format!("{norm}.running_var")),
        };
        let folded = norm.fold_into(&weight.to_f32());
        let inputs = weight.shape[1] as i64;
        self.nodes.conv(name, input, &folded, inputs, window)
    }

    fn values(&self, name: &str) -> Vec<f32> {
        self.tensor(name).to_f32()
    }

    fn tensor(&self, name: &str) -> &TensorData {
        match self.state.get(name) {
            Some(tensor) => tensor,
            None => panic!("weights without {name} were not checked against the layout"),
        }
    }
}
