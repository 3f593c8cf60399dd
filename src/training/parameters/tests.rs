//! Comparison of training steps and gradients with PyTorch and libtorch.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};

use crate::{
    model::{
        fused::TrainableLayers,
        layers::Layer,
        precision::Precision,
        resnet18::{
            Mode, ResNet18, TrainableFrom,
            tests::{assert_close, expected, formula_images, formula_weights},
        },
    },
    training::optimizer::{Optimizer, OptimizerKind, OptimizerOptions},
};

use super::FlatParameters;

fn adam(learning_rate: f64) -> OptimizerOptions {
    OptimizerOptions {
        kind: OptimizerKind::Adam,
        learning_rate,
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-3,
        weight_decay: 0.0,
        momentum: 0.0,
        max_gradient_norm: None,
        groups: Vec::new(),
    }
}

/// Three steps on layer4 and fc by PyTorch, on the network of torchvision with the frozen layers in
/// eval mode.
#[test]
fn training_steps_are_those_of_pytorch_and_leave_frozen_tensors_untouched() {
    let mut state = formula_weights();
    let before: BTreeMap<_, _> = state
        .iter()
        .map(|(name, tensor)| (name.clone(), tensor.copy()))
        .collect();
    let mut parameters = FlatParameters::gather(
        &mut state,
        TrainableFrom::DEFAULT,
        Device::Cpu,
        Precision::F32,
    )
    .unwrap();
    let mut adam = Optimizer::new(&parameters, adam(1e-4)).unwrap();
    let network = ResNet18::new(
        &parameters.computed(&state),
        TrainableFrom::DEFAULT,
        Precision::F32,
    )
    .unwrap();
    let images = formula_images(6, 96);
    let ages = Tensor::from_slice(&[20.0f32, 50.0, 35.0, 5.0, 80.0, 42.0]);
    let mut losses = Vec::new();
    for _ in 0..3 {
        let loss = (network.forward(&images, Mode::Train).unwrap() - &ages)
            .square()
            .mean(Kind::Float);
        losses.push(loss.double_value(&[]) as f32);
        parameters.backward(&loss).unwrap();
        adam.step(&mut parameters, 1.0).unwrap();
    }
    let expected = &expected()["training"];
    // A few units of the seventh digit of losses near 2,000: kernels of PyTorch differ as much.
    assert_close(&Tensor::from_slice(&losses), &expected["losses"], 0.005);
    let after = tch::no_grad(|| network.forward(&images, Mode::Eval)).unwrap();
    assert_close(&after, &expected["eval_after"], 1e-3);
    let first_four = |name: &str| state[name].narrow(0, 0, 4);
    assert_close(
        &first_four("layer4.1.bn2.running_mean"),
        &expected["running_mean"],
        1e-3,
    );
    assert_close(
        &first_four("layer4.1.bn2.running_var"),
        &expected["running_var"],
        1e-3,
    );
    assert_eq!(
        state["layer4.1.bn2.num_batches_tracked"].int64_value(&[]),
        6
    );
    for (name, tensor) in &state {
        let same = tensor.detach().equal(&before[name]);
        assert_eq!(same, !TrainableFrom::DEFAULT.contains_name(name), "{name}");
    }
}

/// Equals a cast to bf16 in every forward pass.
#[test]
fn rounded_copy_follows_the_parameters() {
    let mut state = formula_weights();
    let mut parameters = FlatParameters::gather(
        &mut state,
        TrainableFrom::DEFAULT,
        Device::Cpu,
        Precision::Bf16,
    )
    .unwrap();
    let mut adam = Optimizer::new(&parameters, adam(1e-2)).unwrap();
    let computed = parameters.computed(&state);
    let network = ResNet18::new(&computed, TrainableFrom::DEFAULT, Precision::Bf16).unwrap();
    let images = formula_images(4, 64);
    for _ in 0..2 {
        for (name, leaf) in &computed {
            let master = &state[name];
            let expected = master.to_kind(leaf.kind());
            assert!(leaf.detach().equal(&expected), "{name}");
        }
        let loss = network
            .forward(&images, Mode::Train)
            .unwrap()
            .square()
            .mean(Kind::Float);
        parameters.backward(&loss).unwrap();
        adam.step(&mut parameters, 1.0).unwrap();
    }
    assert_eq!(computed["layer4.0.conv1.weight"].kind(), Kind::BFloat16);
    assert_eq!(state["layer4.0.conv1.weight"].kind(), Kind::Float);
}

/// In bf16 each layer rounds. The own passes must be about as close to f32 as those of libtorch,
/// summed over images of several sizes.
#[test]
fn own_gradient_in_bf16_is_as_close_to_f32_as_libtorchs() {
    let mut outputs = Errors::default();
    for first in ["layer4", "layer3", "layer2", "layer1", "conv1"] {
        let mut gradients = Errors::default();
        for side in [100, 97, 66] {
            compare(trained_from(first), side, &mut outputs, &mut gradients);
        }
        gradients.assert_within(1.5, first);
    }
    outputs.assert_within(1.3, "all");
}

/// By kernel and tensor: summed errors of the own passes and of libtorch against f32.
#[derive(Default)]
struct Errors(BTreeMap<(usize, String), (f64, f64)>);

impl Errors {
    fn add(&mut self, kernel: usize, name: &str, of_own: f64, of_libtorch: f64) {
        let sums = self.0.entry((kernel, name.to_owned())).or_default();
        sums.0 += of_own;
        sums.1 += of_libtorch;
    }

    fn assert_within(&self, factor: f64, what: &str) {
        let far =
            |(_, (of_own, of_libtorch)): &(_, &(f64, f64))| *of_own >= factor * of_libtorch + 1e-3;
        let far: Vec<_> = self.0.iter().filter(far).collect();
        assert!(far.is_empty(), "{what}: {far:?}");
    }
}

fn trained_from(first: &str) -> TrainableFrom {
    let parts = Layer::ALL.map(Layer::name);
    let from = parts.iter().position(|part| *part == first).unwrap();
    TrainableFrom::parse(&parts[from..]).unwrap()
}

type Constructor =
    fn(&FlatParameters, TrainableFrom, &BTreeMap<String, Tensor>) -> Option<TrainableLayers>;

/// Constructors of the kernels for different CPUs; a CPU may lack some.
const CONSTRUCTORS: [Constructor; 3] = [
    |parameters, trained, state| TrainableLayers::new(parameters.lengths(), trained, state),
    |parameters, trained, state| TrainableLayers::in_bf16(parameters.lengths(), trained, state),
    |parameters, trained, state| {
        TrainableLayers::emulated_bf16(parameters.lengths(), trained, state)
    },
];

fn gathered(
    trained: TrainableFrom,
    precision: Precision,
) -> (BTreeMap<String, Tensor>, FlatParameters) {
    let mut state = formula_weights();
    let parameters = FlatParameters::gather(&mut state, trained, Device::Cpu, precision);
    (state, parameters.unwrap())
}

fn ages(count: usize) -> Tensor {
    let ages: Vec<f32> = (0..count).map(|one| (5 + 37 * one % 80) as f32).collect();
    Tensor::from_slice(&ages)
}

/// Features of images, or the images if no layer is frozen.
fn input(images: &Tensor, trained: TrainableFrom) -> Tensor {
    if trained.contains(Layer::Conv1) {
        return images.shallow_clone();
    }
    let network = ResNet18::new(&formula_weights(), trained, Precision::F32).unwrap();
    let features = network.features(images, Mode::Eval).unwrap();
    features.to_kind(Kind::BFloat16)
}

/// Runs forward and backward passes and returns the predictions.
fn step(tail: &mut TrainableLayers, parameters: &mut FlatParameters, input: &Tensor) -> Tensor {
    tail.load(parameters.values());
    let predicted = tail.forward(input, parameters.values(), Mode::Train);
    let predicted = predicted.unwrap().requires_grad_(true);
    let ages = ages(input.size()[0] as usize);
    let loss = (&predicted - &ages).square().mean(Kind::Float);
    let both = (&loss, &predicted);
    parameters.backward_through(tail, input, both).unwrap();
    predicted.detach()
}

/// Relative error in the root mean square.
fn off(found: &Tensor, expected: &Tensor) -> f64 {
    let error = (found - expected).square().mean(Kind::Float);
    let size = expected.square().mean(Kind::Float);
    (error / size).sqrt().double_value(&[])
}

fn compare(trained: TrainableFrom, side: usize, outputs: &mut Errors, gradients: &mut Errors) {
    const COUNT: usize = 18;
    let input = input(&formula_images(COUNT, side), trained);
    let with_autograd = |precision: Precision| {
        let (state, mut parameters) = gathered(trained, precision);
        let network = ResNet18::new(&parameters.computed(&state), trained, precision).unwrap();
        let output = if trained.contains(Layer::Conv1) {
            network.forward(&input, Mode::Train).unwrap()
        } else {
            let input = input.to_kind(precision.kind());
            network.forward_features(input, Mode::Train).unwrap()
        };
        let loss = (&output - &ages(COUNT)).square().mean(Kind::Float);
        parameters.backward(&loss).unwrap();
        (output.detach(), parameters, state)
    };
    let (exact, expected, expected_state) = with_autograd(Precision::F32);
    let (rounded, found, _) = with_autograd(Precision::Bf16);
    for (kernel, new) in CONSTRUCTORS.into_iter().enumerate() {
        let (state, mut parameters) = gathered(trained, Precision::F32);
        let Some(mut tail) = new(&parameters, trained, &state) else {
            // This CPU lacks the instructions.
            continue;
        };
        let predicted = step(&mut tail, &mut parameters, &input);
        outputs.add(
            kernel,
            "outputs",
            off(&predicted, &exact),
            off(&rounded, &exact),
        );
        let mut at = 0;
        for (name, length) in expected.lengths() {
            let part = |gradient: &Tensor| gradient.narrow(0, at, length as i64);
            let expected = part(&expected.gradient);
            let of_own = off(&part(&parameters.gradient), &expected);
            let of_libtorch = off(&part(&found.gradient), &expected);
            gradients.add(kernel, name, of_own, of_libtorch);
            at += length as i64;
        }
        for (name, expected) in &expected_state {
            let is_trained = trained.contains_name(name);
            if is_trained && name.contains("running") {
                let of_own = off(&state[name], expected);
                assert!(
                    of_own < 5e-3,
                    "{trained:?}, kernel {kernel}, {name}: {of_own}"
                );
            }
            if is_trained && name.ends_with("num_batches_tracked") {
                let (found, expected) = (&state[name], expected.int64_value(&[]));
                assert_eq!(found.int64_value(&[]), expected, "{trained:?}, {name}");
            }
        }
    }
}

/// Buffers keep nothing of earlier batches and images of other sizes.
#[test]
fn own_gradient_does_not_depend_on_the_batches_before() {
    let trained = trained_from("conv1");
    for new in CONSTRUCTORS {
        let (state, mut parameters) = gathered(trained, Precision::F32);
        let Some(mut used) = new(&parameters, trained, &state) else {
            continue;
        };
        drop(step(&mut used, &mut parameters, &formula_images(9, 100)));
        let images = formula_images(7, 65);
        drop(used.forward(&images, parameters.values(), Mode::Eval));
        for (count, side) in [(1, 97), (3, 64)] {
            let images = formula_images(count, side);
            let found = step(&mut used, &mut parameters, &images);
            let found = (found, parameters.gradient.copy());
            let mut fresh = new(&parameters, trained, &state).unwrap();
            let expected = step(&mut fresh, &mut parameters, &images);
            assert!(found.0.equal(&expected), "{count} of {side}");
            assert!(found.1.equal(&parameters.gradient), "{count} of {side}");
        }
    }
}
