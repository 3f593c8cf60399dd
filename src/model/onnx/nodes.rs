//! A graph that grows by one operator at a time. Each method appends an operator with its
//! initializers and returns the name of its output.

use super::{
    fold::Folded,
    message::{Attribute, Node, Tensor, element},
};

/// Kernel, stride and padding of a convolution, equal in both directions.
#[derive(Clone, Copy)]
pub(super) struct Window {
    pub(super) kernel: i64,
    pub(super) stride: i64,
    pub(super) padding: i64,
}

impl Window {
    fn attributes(self) -> Vec<Attribute> {
        vec![
            Attribute::ints("kernel_shape", &[self.kernel; 2]),
            Attribute::ints("pads", &[self.padding; 4]),
            Attribute::ints("strides", &[self.stride; 2]),
        ]
    }
}

#[derive(Default)]
pub(super) struct Nodes {
    pub(super) nodes: Vec<Node>,
    pub(super) initializers: Vec<Tensor>,
}

impl Nodes {
    /// A convolution of `inputs` channels.
    pub(super) fn conv(
        &mut self,
        name: &str,
        input: &str,
        folded: &Folded,
        inputs: i64,
        window: Window,
    ) -> String {
        let outputs = folded.bias.len() as i64;
        let shape = [outputs, inputs, window.kernel, window.kernel];
        let parameters = self.parameters(name, &shape, folded);
        let [weight, bias] = &parameters;
        self.push("Conv", name, &[input, weight, bias], window.attributes())
    }

    pub(super) fn max_pool(&mut self, name: &str, input: &str, window: Window) -> String {
        self.push("MaxPool", name, &[input], window.attributes())
    }

    pub(super) fn relu(&mut self, name: &str, input: &str) -> String {
        self.push("Relu", name, &[input], Vec::new())
    }

    pub(super) fn add(&mut self, name: &str, left: &str, right: &str) -> String {
        self.push("Add", name, &[left, right], Vec::new())
    }

    /// The mean of each channel: `[N, C, H, W]` to `[N, C]`.
    pub(super) fn mean_of_channels(&mut self, input: &str) -> String {
        let pooled = self.push("GlobalAveragePool", "avgpool", &[input], Vec::new());
        let axis = vec![Attribute::int("axis", 1)];
        self.push("Flatten", "flatten", &[&pooled], axis)
    }

    /// The linear layer with one output: `[N, C]` to `[N, 1]`.
    pub(super) fn linear(&mut self, name: &str, input: &str, folded: &Folded) -> String {
        let parameters = self.parameters(name, &[1, folded.weight.len() as i64], folded);
        let [weight, bias] = &parameters;
        let transposed = vec![Attribute::int("transB", 1)];
        self.push("Gemm", name, &[input, weight, bias], transposed)
    }

    /// `[N, 1]` to `[N]`.
    pub(super) fn squeeze(&mut self, name: &str, input: &str) -> String {
        let axes = self.initializer(Tensor::integers(&format!("{name}.axes"), &[1]));
        self.push("Squeeze", name, &[input, &axes], Vec::new())
    }

    /// Pixels `[N, H, W, 3]` in uint8 to normalized planes `[N, 3, H, W]` in f32.
    pub(super) fn normalized(&mut self, input: &str, mean: [f32; 3], std: [f32; 3]) -> String {
        let order = vec![Attribute::ints("perm", &[0, 3, 1, 2])];
        let planes = self.push("Transpose", "planes", &[input], order);
        let to_f32 = vec![Attribute::int("to", i64::from(element::FLOAT))];
        let levels = self.push("Cast", "levels", &[&planes], to_f32);
        // (v / 255 - mean) / std = (v - 255 mean) / (255 std).
        let in_levels = |values: [f32; 3]| values.map(|value| (f64::from(value) * 255.0) as f32);
        let mut of_channels = |name: &str, values: [f32; 3]| {
            let tensor = Tensor::floats(name, &[1, 3, 1, 1], &in_levels(values));
            self.initializer(tensor)
        };
        let mean = of_channels("normalize.mean", mean);
        let std = of_channels("normalize.std", std);
        let centred = self.push("Sub", "centred", &[&levels, &mean], Vec::new());
        self.push("Div", "normalized", &[&centred, &std], Vec::new())
    }

    fn parameters(&mut self, layer: &str, shape: &[i64], folded: &Folded) -> [String; 2] {
        let bias_shape = [folded.bias.len() as i64];
        [
            Tensor::floats(&format!("{layer}.weight"), shape, &folded.weight),
            Tensor::floats(&format!("{layer}.bias"), &bias_shape, &folded.bias),
        ]
        .map(|tensor| self.initializer(tensor))
    }

    fn initializer(&mut self, tensor: Tensor) -> String {
        let name = tensor.name.clone();
        self.initializers.push(tensor);
        name
    }

    /// Appends an operator; its output has the name of the operator.
    fn push(
        &mut self,
        op_type: &str,
        name: &str,
        inputs: &[&str],
        attribute: Vec<Attribute>,
    ) -> String {
        self.nodes.push(Node {
            input: inputs.iter().map(|input| (*input).to_owned()).collect(),
            output: vec![name.to_owned()],
            name: name.to_owned(),
            op_type: op_type.to_owned(),
            attribute,
        });
        name.to_owned()
    }
}
