//! Adam, AdamW and stochastic gradient descent on the flat buffer, with a state that can be kept.

use tch::{Device, Tensor};

use crate::model::{
    Error,
    slices::{bits_mut, values_mut},
};

use super::{
    flat::FlatParameters,
    update_kernel::{self, Buffers, Step},
};

/// Rules of updating.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Kingma and Ba, 2015, arXiv:1412.6980, algorithm 1, with the penalty of `torch.optim.Adam`.
    Adam,
    /// Loshchilov and Hutter, 2019, arXiv:1711.05101, algorithm 2, as `torch.optim.AdamW`.
    AdamW,
    /// `torch.optim.SGD` without dampening.
    Sgd,
}

/// How weights are updated.
#[derive(Debug, Clone, PartialEq)]
pub struct OptimizerOptions {
    /// The rule.
    pub rule: Rule,
    /// Step size before the schedule.
    pub learning_rate: f64,
    /// Decay of Adam's first moment.
    pub beta1: f64,
    /// Decay of Adam's second moment.
    pub beta2: f64,
    /// Added to Adam's denominator.
    pub epsilon: f64,
    /// L2 penalty on the gradient; with AdamW the share of the weights that each step takes away, times the learning rate.
    pub weight_decay: f64,
    /// SGD's momentum.
    pub momentum: f64,
    /// Longest gradient; `None` for any.
    pub max_gradient_norm: Option<f64>,
    /// Prefixes of names and their factors on the learning rate; the longest prefix that fits counts.
    pub groups: Vec<(String, f64)>,
}

impl OptimizerOptions {
    /// The factor on the learning rate of a parameter.
    fn factor(&self, name: &str) -> f64 {
        let fitting = self
            .groups
            .iter()
            .filter(|(prefix, _)| name.starts_with(prefix.as_str()));
        let longest = fitting.max_by_key(|(prefix, _)| prefix.len());
        longest.map_or(1.0, |(_, factor)| *factor)
    }
}

/// The optimizer's state: two moments `[P]`, of which SGD uses the first as its velocity, and the number of steps.
#[derive(Debug)]
pub struct Optimizer {
    options: OptimizerOptions,
    first_moment: Tensor,
    second_moment: Tensor,
    steps: i32,
    /// Lengths of the pieces of the buffer with their factors on the learning rate, in order.
    pieces: Vec<(usize, f64)>,
}

impl Optimizer {
    /// An optimizer that has not made a step.
    ///
    /// # Errors
    /// A lack of memory.
    pub fn new(parameters: &FlatParameters, options: OptimizerOptions) -> Result<Self, Error> {
        let mut pieces: Vec<(usize, f64)> = Vec::new();
        for (name, length) in parameters.lengths() {
            let factor = options.factor(name);
            match pieces.last_mut().filter(|last| last.1 == factor) {
                Some(last) => last.0 += length,
                None => pieces.push((length, factor)),
            }
        }
        Ok(Optimizer {
            options,
            first_moment: parameters.buffer.f_zeros_like()?,
            second_moment: parameters.buffer.f_zeros_like()?,
            steps: 0,
            pieces,
        })
    }

    /// The step size before the schedule.
    pub fn learning_rate(&self) -> f64 {
        self.options.learning_rate
    }

    /// Changes the step size before the schedule.
    pub fn set_learning_rate(&mut self, learning_rate: f64) {
        self.options.learning_rate = learning_rate;
    }

    /// Steps made so far.
    pub fn steps(&self) -> i32 {
        self.steps
    }

    /// Both moments, shared.
    pub fn moments(&self) -> [&Tensor; 2] {
        [&self.first_moment, &self.second_moment]
    }

    /// Goes on where another process was.
    ///
    /// # Errors
    /// Moments of another length.
    pub fn restore(&mut self, first: &Tensor, second: &Tensor, steps: i32) -> Result<(), Error> {
        tch::no_grad(|| {
            self.first_moment.f_copy_(first)?;
            self.second_moment.f_copy_(second)
        })?;
        self.steps = steps;
        Ok(())
    }

    /// Updates the parameters from the gradient of the last backward pass, with `factor` on the learning rate.
    ///
    /// # Errors
    /// A lack of memory.
    pub fn step(&mut self, parameters: &mut FlatParameters, factor: f64) -> Result<(), Error> {
        self.steps += 1;
        let learning_rate = self.options.learning_rate * factor;
        if parameters.buffer.device() == Device::Cpu {
            return self.step_on_cpu(parameters, learning_rate);
        }
        tch::no_grad(|| self.step_on_device(parameters, learning_rate))
    }

    fn step_on_cpu(
        &mut self,
        parameters: &mut FlatParameters,
        learning_rate: f64,
    ) -> Result<(), Error> {
        let gradient_scale = match self.options.max_gradient_norm {
            None => 1.0,
            Some(longest) => {
                let length = parameters.gradient.f_norm()?.double_value(&[]);
                clipping(longest, length) as f32
            }
        };
        let threads = usize::try_from(tch::get_num_threads()).unwrap_or(1);
        let pieces = self.pieces.clone();
        let steps: Vec<Step> = pieces
            .iter()
            .map(|(_, factor)| self.numbers(learning_rate * factor, gradient_scale))
            .collect();
        let mut rest = Buffers {
            parameters: values_mut(&mut parameters.buffer),
            gradient: values_mut(&mut parameters.gradient),
            first_moment: values_mut(&mut self.first_moment),
            second_moment: values_mut(&mut self.second_moment),
            rounded: parameters.rounded.as_mut().map(bits_mut),
        };
        for ((length, _), step) in pieces.into_iter().zip(steps) {
            let (piece, later) = rest.split_at(length);
            rest = later;
            update_kernel::step(piece, step, threads);
        }
        Ok(())
    }

    fn numbers(&self, learning_rate: f64, gradient_scale: f32) -> Step {
        let options = &self.options;
        if options.rule == Rule::Sgd {
            return Step::Sgd(update_kernel::Sgd {
                gradient_scale,
                momentum: options.momentum as f32,
                step_size: learning_rate as f32,
                penalty: options.weight_decay as f32,
            });
        }
        let (first_correction, second_correction) = self.corrections();
        let (penalty, shrink) = self.decay(learning_rate);
        Step::Adam(update_kernel::Adam {
            gradient_scale,
            first_rate: (1.0 - options.beta1) as f32,
            second_decay: options.beta2 as f32,
            second_rate: (1.0 - options.beta2) as f32,
            step_size: (learning_rate / first_correction) as f32,
            second_correction: second_correction as f32,
            epsilon: options.epsilon as f32,
            penalty: penalty as f32,
            shrink: shrink as f32,
        })
    }

    /// 1 - β₁ᵗ and √(1 - β₂ᵗ).
    fn corrections(&self) -> (f64, f64) {
        let first = 1.0 - self.options.beta1.powi(self.steps);
        let second = (1.0 - self.options.beta2.powi(self.steps)).sqrt();
        (first, second)
    }

    /// What is added to the gradient, times the parameter; and the factor on the parameter.
    fn decay(&self, learning_rate: f64) -> (f64, f64) {
        let decay = self.options.weight_decay;
        match self.options.rule {
            Rule::Adam | Rule::Sgd => (decay, 1.0),
            Rule::AdamW => (0.0, 1.0 - learning_rate * decay),
        }
    }

    /// The same by libtorch's operations, without waiting for the device.
    fn step_on_device(
        &mut self,
        parameters: &mut FlatParameters,
        learning_rate: f64,
    ) -> Result<(), Error> {
        if let Some(longest) = self.options.max_gradient_norm {
            let length = parameters.gradient.f_norm()?.f_add_scalar(CLIP_EPSILON)?;
            let scale = length.f_reciprocal()?.f_mul_scalar(longest)?;
            let scale = scale.f_clamp_max(1.0)?;
            parameters.gradient.f_mul_(&scale).map(drop)?;
        }
        let mut offset = 0;
        for (length, factor) in self.pieces.clone() {
            let length = length as i64;
            let piece = |tensor: &Tensor| tensor.f_narrow(0, offset, length);
            let (mut buffer, gradient) = (piece(&parameters.buffer)?, piece(&parameters.gradient)?);
            let (first, second) = (piece(&self.first_moment)?, piece(&self.second_moment)?);
            let learning_rate = learning_rate * factor;
            let (penalty, shrink) = self.decay(learning_rate);
            let gradient = match penalty == 0.0 {
                true => gradient,
                false => gradient.f_add(&buffer.f_mul_scalar(penalty)?)?,
            };
            let update = match self.options.rule {
                Rule::Sgd => self.velocity(first, &gradient, learning_rate)?,
                Rule::Adam | Rule::AdamW => {
                    self.direction(first, second, &gradient, learning_rate)?
                }
            };
            if shrink != 1.0 {
                buffer.f_mul_scalar_(shrink).map(drop)?;
            }
            buffer.f_sub_(&update).map(drop)?;
            offset += length;
        }
        if let Some(rounded) = &mut parameters.rounded {
            rounded.f_copy_(&parameters.buffer)?;
        }
        Ok(())
    }

    fn velocity(
        &self,
        mut velocity: Tensor,
        gradient: &Tensor,
        learning_rate: f64,
    ) -> Result<Tensor, Error> {
        let moved = velocity
            .f_mul_scalar_(self.options.momentum)?
            .f_add_(gradient)?;
        Ok(moved.f_mul_scalar(learning_rate)?)
    }

    fn direction(
        &self,
        mut first: Tensor,
        mut second: Tensor,
        gradient: &Tensor,
        learning_rate: f64,
    ) -> Result<Tensor, Error> {
        let OptimizerOptions { beta1, beta2, .. } = self.options;
        let (first_correction, second_correction) = self.corrections();
        let first = first.f_lerp_(gradient, 1.0 - beta1)?;
        let squared = gradient.f_square()?.f_mul_scalar_(1.0 - beta2)?;
        let second = second.f_mul_scalar_(beta2)?.f_add_(&squared)?;
        let denominator = second
            .f_sqrt()?
            .f_div_scalar_(second_correction)?
            .f_add_scalar_(self.options.epsilon)?;
        Ok(first
            .f_div(&denominator)?
            .f_mul_scalar_(learning_rate / first_correction)?)
    }
}

/// As in `torch.nn.utils.clip_grad_norm_`.
const CLIP_EPSILON: f64 = 1e-6;

/// The factor that makes a gradient of this length at most so long (Pascanu et al., 2013, arXiv:1211.5063, algorithm 1).
fn clipping(longest: f64, length: f64) -> f64 {
    (longest / (length + CLIP_EPSILON)).min(1.0)
}

/// An exponential moving average of what is trained (Polyak and Juditsky, 1992; with the warm-up of TensorFlow's ExponentialMovingAverage).
#[derive(Debug)]
pub struct Average {
    decay: f64,
    updates: u64,
    /// The flat parameters, then the running statistics of trained parts, in the order of their names.
    tensors: Vec<Tensor>,
}

impl Average {
    /// Begins with what is trained as it is.
    ///
    /// # Errors
    /// A lack of memory.
    pub fn new(decay: f64, trained: &[Tensor]) -> Result<Self, Error> {
        let copies = trained
            .iter()
            .map(|tensor| Ok(tensor.f_detach()?.f_add_scalar(0)?));
        Ok(Average {
            decay,
            updates: 0,
            tensors: copies.collect::<Result<_, Error>>()?,
        })
    }

    /// Takes in what is trained after a step.
    ///
    /// # Errors
    /// A lack of memory.
    pub fn update(&mut self, trained: &[Tensor]) -> Result<(), Error> {
        let updates = self.updates as f64;
        let decay = self.decay.min((1.0 + updates) / (10.0 + updates));
        self.updates += 1;
        tch::no_grad(|| {
            for (average, tensor) in self.tensors.iter_mut().zip(trained) {
                average.f_lerp_(tensor, 1.0 - decay).map(drop)?;
            }
            Ok(())
        })
    }

    /// Exchanges the average and what is trained; a second call undoes the first.
    ///
    /// # Errors
    /// A lack of memory.
    pub fn exchange(&mut self, trained: &mut [Tensor]) -> Result<(), Error> {
        tch::no_grad(|| {
            for (average, tensor) in self.tensors.iter_mut().zip(trained) {
                let kept = tensor.f_detach()?.f_add_scalar(0)?;
                tensor.f_copy_(average)?;
                average.f_copy_(&kept)?;
            }
            Ok(())
        })
    }

    /// Updates so far.
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// The averages, shared.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// Goes on where another process was.
    ///
    /// # Errors
    /// Tensors of other shapes.
    pub fn restore(&mut self, tensors: &[Tensor], updates: u64) -> Result<(), Error> {
        tch::no_grad(|| {
            for (average, tensor) in self.tensors.iter_mut().zip(tensors) {
                average.f_copy_(tensor)?;
            }
            Ok::<_, Error>(())
        })?;
        self.updates = updates;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tch::Kind;

    use super::*;
    use crate::model::{precision::Precision, resnet18::TrainableFrom};

    const ADAM: OptimizerOptions = OptimizerOptions {
        rule: Rule::Adam,
        learning_rate: 0.1,
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        weight_decay: 0.0,
        momentum: 0.9,
        max_gradient_norm: None,
        groups: Vec::new(),
    };

    /// Three steps of torch.optim 2.11 on fixed gradients; `make_model_fixtures.py` made the numbers. The last of four parameters is the head's bias, which
    /// has a learning rate of its own in one of them.
    #[test]
    fn steps_are_those_of_torch() {
        check(ADAM, &include!("../../tests/fixtures/optimizers/adam.in"));
        check(
            OptimizerOptions {
                weight_decay: 0.1,
                ..ADAM
            },
            &include!("../../tests/fixtures/optimizers/adam_decay.in"),
        );
        check(
            OptimizerOptions {
                rule: Rule::AdamW,
                weight_decay: 0.1,
                ..ADAM
            },
            &include!("../../tests/fixtures/optimizers/adamw.in"),
        );
        check(
            OptimizerOptions {
                rule: Rule::Sgd,
                weight_decay: 0.1,
                ..ADAM
            },
            &include!("../../tests/fixtures/optimizers/sgd.in"),
        );
        check(
            OptimizerOptions {
                rule: Rule::Sgd,
                max_gradient_norm: Some(0.25),
                ..ADAM
            },
            &include!("../../tests/fixtures/optimizers/sgd_clipped.in"),
        );
        check(
            OptimizerOptions {
                rule: Rule::AdamW,
                weight_decay: 0.1,
                groups: vec![("fc".to_owned(), 0.5), ("fc.bias".to_owned(), 0.1)],
                ..ADAM
            },
            &include!("../../tests/fixtures/optimizers/adamw_groups.in"),
        );
    }

    const GRADIENTS: [[f32; 4]; 3] = [
        [0.1, -0.2, 0.3, 0.5],
        [0.3, 0.1, -0.2, -0.4],
        [-0.1, 0.4, 0.05, 0.2],
    ];

    fn check(options: OptimizerOptions, expected: &[[f32; 4]; 3]) {
        let weight = || Tensor::from_slice(&[1.0f32, -2.0, 3.0]).reshape([1, 3]);
        let bias = || Tensor::from_slice(&[0.5f32]);
        // On the processor by our kernel, and by the operations that a GPU uses.
        for is_kernel in [true, false] {
            let mut state = BTreeMap::from([
                ("fc.weight".to_owned(), weight()),
                ("fc.bias".to_owned(), bias()),
            ]);
            let mut parameters = FlatParameters::gather(
                &mut state,
                TrainableFrom::DEFAULT,
                Device::Cpu,
                Precision::F32,
            )
            .unwrap();
            let mut optimizer = Optimizer::new(&parameters, options.clone()).unwrap();
            for (gradient, expected) in GRADIENTS.iter().zip(expected) {
                // The gradient of the inner product with a constant is the constant.
                let computed = parameters.computed(&state);
                let loss = (&computed["fc.weight"] * Tensor::from_slice(&gradient[..3]))
                    .sum(Kind::Float)
                    + (&computed["fc.bias"] * f64::from(gradient[3])).sum(Kind::Float);
                parameters.backward(&loss).unwrap();
                if is_kernel {
                    optimizer.step(&mut parameters, 1.0).unwrap();
                } else {
                    optimizer.steps += 1;
                    let rate = options.learning_rate;
                    tch::no_grad(|| optimizer.step_on_device(&mut parameters, rate)).unwrap();
                }
                let mut found = Vec::<f32>::try_from(state["fc.weight"].reshape([-1])).unwrap();
                found.push(state["fc.bias"].double_value(&[0]) as f32);
                for (found, expected) in found.iter().zip(expected) {
                    assert!(
                        (found - expected).abs() < 2e-6,
                        "{found} is not {expected} ({options:?}, kernel {is_kernel})"
                    );
                }
            }
        }
    }

    /// Decays of 1/10, 2/11 and then 3/12, which is more than the 0.2 asked for: 0 → 0.9 → 1.8 (0.9·2/11 + 2·9/11) → 0.2·that + 0.8·4.
    #[test]
    fn average_follows_a_hand_calculation() {
        let value = |number: f32| [Tensor::from_slice(&[number])];
        let mut average = Average::new(0.2, &value(0.0)).unwrap();
        for number in [1.0, 2.0, 4.0] {
            average.update(&value(number)).unwrap();
        }
        let second = 0.9 * 2.0 / 11.0 + 2.0 * 9.0 / 11.0;
        let expected = 0.2 * second + 0.8 * 4.0;
        assert!((average.tensors()[0].double_value(&[0]) - expected).abs() < 1e-6);
        let mut trained = value(7.0);
        average.exchange(&mut trained).unwrap();
        assert!((trained[0].double_value(&[0]) - expected).abs() < 1e-6);
        assert_eq!(average.tensors()[0].double_value(&[0]), 7.0);
    }
}
