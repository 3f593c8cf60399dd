//! The trained parameters as views of one buffer.
//!
//! tch's optimizers do not give out their state, so an exact resume would be impossible with them. One flat f32 buffer makes an optimizer of our own a
//! handful of operations, and one file, one norm or one all-reduce out of all parameters.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};

use crate::model::{
    Error,
    fused::TrainableLayers,
    precision::Precision,
    resnet18::{TrainableFrom, is_parameter},
};

/// All trained parameters in one buffer `[P]`, in the order of their names.
///
/// In 16 bits the kernels of convolutions compute from a rounded copy, which each step of the optimizer renews: as a cast in every forward pass would,
/// without passing over memory once more, and their gradients come in 16 bits.
#[derive(Debug)]
pub struct FlatParameters {
    pub(super) buffer: Tensor,
    pub(super) gradient: Tensor,
    /// `[P]` in bf16; `None` when everything computes in f32.
    pub(super) rounded: Option<Tensor>,
    /// What gradients are taken of, by name.
    leaves: Vec<(String, Tensor)>,
}

impl FlatParameters {
    /// Moves the trained parameters of `state` into one buffer and puts views of it in their place.
    ///
    /// # Errors
    /// Whatever libtorch refuses, such as a lack of memory.
    pub fn gather(
        state: &mut BTreeMap<String, Tensor>,
        trained: TrainableFrom,
        device: Device,
        precision: Precision,
    ) -> Result<Self, Error> {
        let names: Vec<String> = state
            .keys()
            .filter(|name| is_parameter(name) && trained.contains_name(name))
            .cloned()
            .collect();
        let count: i64 = names.iter().map(|name| elements(&state[name])).sum();
        let buffer = Tensor::f_zeros([count], (Kind::Float, device))?;
        let gradient = Tensor::f_zeros([count], (Kind::Float, device))?;
        let kind = precision.kind();
        let is_rounded = kind != Kind::Float;
        let rounded = is_rounded
            .then(|| Tensor::f_zeros([count], (kind, device)))
            .transpose()?;
        let mut leaves = Vec::with_capacity(names.len());
        let mut offset = 0;
        for name in names {
            let tensor = &state[&name];
            let length = elements(tensor);
            let mut view = view_of(&buffer, offset, &tensor.size())?;
            view.f_copy_(tensor)?;
            let shape = tensor.size();
            let computes = match &rounded {
                Some(rounded) if shape.len() == 4 => {
                    let mut rounded = view_of(rounded, offset, &shape)?;
                    rounded.f_copy_(&view)?;
                    rounded
                }
                _ => view.shallow_clone(),
            };
            // Detached from the buffer's history, so that autograd takes it for a leaf that shares its memory.
            let leaf = computes.f_detach()?.f_requires_grad_(true)?;
            leaves.push((name.clone(), leaf));
            state.insert(name, view.f_detach()?);
            offset += length;
        }
        Ok(FlatParameters {
            buffer,
            gradient,
            rounded,
            leaves,
        })
    }

    /// What the network computes from: `state`, with the tensors that gradients are taken of in their places.
    pub fn computed(&self, state: &BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
        let shared = |(name, tensor): (&String, &Tensor)| (name.clone(), tensor.shallow_clone());
        let mut computed: BTreeMap<String, Tensor> = state.iter().map(shared).collect();
        computed.extend(self.leaves.iter().map(|(name, leaf)| shared((name, leaf))));
        computed
    }

    /// Names and lengths of the parts of the buffer, in order.
    pub fn lengths(&self) -> impl Iterator<Item = (&str, usize)> {
        let length = |tensor| usize::try_from(elements(tensor)).unwrap_or(0);
        self.leaves
            .iter()
            .map(move |(name, leaf)| (name.as_str(), length(leaf)))
    }

    /// All trained parameters, `[P]`, shared.
    pub fn values(&self) -> &Tensor {
        &self.buffer
    }

    /// Goes on with what another process had, `[P]`.
    ///
    /// # Errors
    /// A buffer of another length.
    pub fn restore(&mut self, values: &Tensor) -> Result<(), Error> {
        tch::no_grad(|| self.buffer.f_copy_(values))?;
        self.renew_rounded()
    }

    /// Number of trained parameters.
    pub fn count(&self) -> i64 {
        elements(&self.buffer)
    }

    /// Renews the rounded copy after the buffer was changed by other means than a step of the optimizer.
    ///
    /// # Errors
    /// Whatever libtorch refuses.
    pub fn renew_rounded(&mut self) -> Result<(), Error> {
        if let Some(rounded) = &mut self.rounded {
            tch::no_grad(|| rounded.f_copy_(&self.buffer))?;
        }
        Ok(())
    }

    /// Computes the gradient of a scalar loss with respect to the buffer.
    ///
    /// # Errors
    /// Whatever libtorch refuses, such as a lack of memory.
    pub fn backward(&mut self, loss: &Tensor) -> Result<(), Error> {
        let leaves: Vec<&Tensor> = self.leaves.iter().map(|(_, leaf)| leaf).collect();
        let gradients = Tensor::f_run_backward(&[loss], &leaves, false, false)?;
        let mut offset = 0;
        for gradient in &gradients {
            view_of(&self.gradient, offset, &gradient.size())?.f_copy_(gradient)?;
            offset += elements(gradient);
        }
        Ok(())
    }
}

impl FlatParameters {
    /// As [`FlatParameters::backward`], where `tail` computed the output, a leaf that the loss is a function of, from the features.
    ///
    /// # Errors
    /// Whatever libtorch refuses, such as a lack of memory.
    pub(crate) fn backward_through(
        &mut self,
        tail: &mut TrainableLayers,
        features: &Tensor,
        (loss, output): (&Tensor, &Tensor),
    ) -> Result<(), Error> {
        let of_output = Tensor::f_run_backward(&[loss], &[output], false, false)?;
        tail.backward(features, &self.buffer, &of_output[0], &mut self.gradient)
    }
}

/// The part of a flat buffer that begins at `offset`, as a tensor of this shape. Kernels of convolutions lie channels last in it, as the
/// convolutions want them and their gradients come.
fn view_of(buffer: &Tensor, offset: i64, shape: &[i64]) -> Result<Tensor, Error> {
    let part = buffer.f_narrow(0, offset, shape.iter().product())?;
    match *shape {
        [output, input, height, width] => {
            let channels_last = part.f_view([output, height, width, input])?;
            Ok(channels_last.f_permute([0, 3, 1, 2])?)
        }
        _ => Ok(part.f_view(shape)?),
    }
}

fn elements(tensor: &Tensor) -> i64 {
    tensor.size().iter().product()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::resnet18::{
            Layer, Mode, ResNet18,
            tests::{assert_close, expected, formula_images, formula_weights},
        },
        training::optimizer::{Optimizer, OptimizerOptions, Rule},
    };

    fn adam(learning_rate: f64) -> OptimizerOptions {
        OptimizerOptions {
            rule: Rule::Adam,
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

    /// Three steps on layer4 and fc, as PyTorch makes them on torchvision's network with the frozen part in eval mode.
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
        // Losses near 2,000: a few units of the seventh digit, by which PyTorch's own kernels differ.
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

    /// What a cast to bf16 in every forward pass would give.
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

    /// In bf16 each layer rounds; the own passes must not be further from f32 than libtorch's by more than chance, which sums over images of several sides leave little of.
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

    /// By way and name: how far the own figures and libtorch's are from those in f32, over all that were compared.
    #[derive(Default)]
    struct Errors(BTreeMap<(usize, String), (f64, f64)>);

    impl Errors {
        fn add(&mut self, way: usize, name: &str, of_own: f64, of_libtorch: f64) {
            let sums = self.0.entry((way, name.to_owned())).or_default();
            sums.0 += of_own;
            sums.1 += of_libtorch;
        }

        fn assert_within(&self, factor: f64, what: &str) {
            let far = |(_, (of_own, of_libtorch)): &(_, &(f64, f64))| {
                *of_own >= factor * of_libtorch + 1e-3
            };
            let far: Vec<_> = self.0.iter().filter(far).collect();
            assert!(far.is_empty(), "{what}: {far:?}");
        }
    }

    fn trained_from(first: &str) -> TrainableFrom {
        let parts = Layer::ALL.map(Layer::name);
        let from = parts.iter().position(|part| *part == first).unwrap();
        TrainableFrom::parse(&parts[from..]).unwrap()
    }

    type Way =
        fn(&FlatParameters, TrainableFrom, &BTreeMap<String, Tensor>) -> Option<TrainableLayers>;

    /// The ways in which processors train, where this one has them.
    const WAYS: [Way; 3] = [
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

    /// Of as many people.
    fn ages(count: usize) -> Tensor {
        let ages: Vec<f32> = (0..count).map(|one| (5 + 37 * one % 80) as f32).collect();
        Tensor::from_slice(&ages)
    }

    /// What the frozen layers make of images, or the images where nothing is frozen.
    fn input(images: &Tensor, trained: TrainableFrom) -> Tensor {
        if trained.contains(Layer::Conv1) {
            return images.shallow_clone();
        }
        let network = ResNet18::new(&formula_weights(), trained, Precision::F32).unwrap();
        let features = network.features(images, Mode::Eval).unwrap();
        features.to_kind(Kind::BFloat16)
    }

    /// Forward and backward; what was predicted.
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

    /// Size of the difference over the size of what is expected.
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
            let output = match trained.contains(Layer::Conv1) {
                true => network.forward(&input, Mode::Train).unwrap(),
                false => network
                    .forward_features(input.to_kind(precision.kind()), Mode::Train)
                    .unwrap(),
            };
            let loss = (&output - &ages(COUNT)).square().mean(Kind::Float);
            parameters.backward(&loss).unwrap();
            (output.detach(), parameters, state)
        };
        let (exact, expected, expected_state) = with_autograd(Precision::F32);
        let (rounded, found, _) = with_autograd(Precision::Bf16);
        for (way, new) in WAYS.into_iter().enumerate() {
            let (state, mut parameters) = gathered(trained, Precision::F32);
            let Some(mut tail) = new(&parameters, trained, &state) else {
                // The processor lacks the instructions: there is nothing to compare.
                continue;
            };
            let predicted = step(&mut tail, &mut parameters, &input);
            outputs.add(
                way,
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
                gradients.add(way, name, of_own, of_libtorch);
                at += length as i64;
            }
            for (name, expected) in &expected_state {
                let is_trained = trained.contains_name(name);
                if is_trained && name.contains("running") {
                    let of_own = off(&state[name], expected);
                    assert!(of_own < 5e-3, "{trained:?}, way {way}, {name}: {of_own}");
                }
                if is_trained && name.ends_with("num_batches_tracked") {
                    let (found, expected) = (&state[name], expected.int64_value(&[]));
                    assert_eq!(found.int64_value(&[]), expected, "{trained:?}, {name}");
                }
            }
        }
    }

    /// Batches and images of other sizes before leave nothing behind in the buffers.
    #[test]
    fn own_gradient_does_not_depend_on_the_batches_before() {
        let trained = trained_from("conv1");
        for new in WAYS {
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
}
