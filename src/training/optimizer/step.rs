//! Adam, AdamW and stochastic gradient descent on the flat parameter buffer.

use tch::{Device, Tensor};

use crate::{
    model::{
        Error,
        slices::{bits_mut, values_mut},
    },
    training::parameters::FlatParameters,
};

use super::{
    kernel::{self, Buffers, Step},
    options::{OptimizerKind, OptimizerOptions},
};

/// An optimizer with two moments `[P]`; SGD uses the first as its velocity.
#[derive(Debug)]
pub(crate) struct Optimizer {
    options: OptimizerOptions,
    first_moment: Tensor,
    second_moment: Tensor,
    pub(super) steps: i32,
    /// Lengths of consecutive parts of the buffer, with their factors on the learning rate.
    groups: Vec<(usize, f64)>,
}

impl Optimizer {
    /// # Errors
    /// A lack of memory.
    pub(crate) fn new(
        parameters: &FlatParameters,
        options: OptimizerOptions,
    ) -> Result<Self, Error> {
        let mut groups: Vec<(usize, f64)> = Vec::new();
        for (name, length) in parameters.lengths() {
            let factor = options.factor(name);
            match groups.last_mut().filter(|last| last.1 == factor) {
                Some(last) => last.0 += length,
                None => groups.push((length, factor)),
            }
        }
        Ok(Optimizer {
            options,
            first_moment: parameters.buffer.f_zeros_like()?,
            second_moment: parameters.buffer.f_zeros_like()?,
            steps: 0,
            groups,
        })
    }

    /// Learning rate before the schedule.
    pub(crate) fn learning_rate(&self) -> f64 {
        self.options.learning_rate
    }

    pub(crate) fn set_learning_rate(&mut self, learning_rate: f64) {
        self.options.learning_rate = learning_rate;
    }

    pub(crate) fn steps(&self) -> i32 {
        self.steps
    }

    pub(crate) fn moments(&self) -> [&Tensor; 2] {
        [&self.first_moment, &self.second_moment]
    }

    /// Restores the state of an earlier process.
    ///
    /// # Errors
    /// Moments of another length.
    pub(crate) fn restore(
        &mut self,
        first: &Tensor,
        second: &Tensor,
        steps: i32,
    ) -> Result<(), Error> {
        tch::no_grad(|| {
            self.first_moment.f_copy_(first)?;
            self.second_moment.f_copy_(second)
        })?;
        self.steps = steps;
        Ok(())
    }

    /// Updates the parameters with the gradient of the last backward pass. `factor` multiplies the
    /// learning rate.
    ///
    /// # Errors
    /// A lack of memory.
    pub(crate) fn step(
        &mut self,
        parameters: &mut FlatParameters,
        factor: f64,
    ) -> Result<(), Error> {
        self.steps += 1;
        let learning_rate = self.options.learning_rate * factor;
        if parameters.buffer.device() == Device::Cpu {
            return self.step_on_cpu(parameters, learning_rate);
        }
        tch::no_grad(|| self.step_on_device(parameters, learning_rate))
    }

    #[expect(
        unsafe_code,
        reason = "the kernel changes the buffers in place; see model::slices"
    )]
    fn step_on_cpu(
        &mut self,
        parameters: &mut FlatParameters,
        learning_rate: f64,
    ) -> Result<(), Error> {
        let gradient_scale = match self.options.max_gradient_norm {
            None => 1.0,
            Some(max_norm) => {
                let norm = parameters.gradient.f_norm()?.double_value(&[]);
                clipping(max_norm, norm) as f32
            }
        };
        let threads = usize::try_from(tch::get_num_threads()).unwrap_or(1);
        let groups = self.groups.clone();
        let steps: Vec<Step> = groups
            .iter()
            .map(|(_, factor)| self.coefficients(learning_rate * factor, gradient_scale))
            .collect();
        // SAFETY: five separate buffers. Views of them, the parameters of the network, are used by
        // this thread only, and not during the step.
        let mut rest = unsafe {
            Buffers {
                parameters: values_mut(&mut parameters.buffer),
                gradient: values_mut(&mut parameters.gradient),
                first_moment: values_mut(&mut self.first_moment),
                second_moment: values_mut(&mut self.second_moment),
                rounded: parameters.rounded.as_mut().map(|bits| bits_mut(bits)),
            }
        };
        for ((length, _), step) in groups.into_iter().zip(steps) {
            let (group, later) = rest.split_at(length);
            rest = later;
            kernel::step(group, step, threads);
        }
        Ok(())
    }

    fn coefficients(&self, learning_rate: f64, gradient_scale: f32) -> Step {
        let options = &self.options;
        if options.kind == OptimizerKind::Sgd {
            return Step::Sgd(kernel::Sgd {
                gradient_scale,
                momentum: options.momentum as f32,
                step_size: learning_rate as f32,
                penalty: options.weight_decay as f32,
            });
        }
        let (first_correction, second_correction) = self.corrections();
        let (penalty, shrink) = self.decay(learning_rate);
        Step::Adam(kernel::Adam {
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

    /// Factor of the L2 penalty, and factor of the parameter before the step.
    fn decay(&self, learning_rate: f64) -> (f64, f64) {
        let decay = self.options.weight_decay;
        match self.options.kind {
            OptimizerKind::Adam | OptimizerKind::Sgd => (decay, 1.0),
            OptimizerKind::AdamW => (0.0, 1.0 - learning_rate * decay),
        }
    }

    /// Uses operations of libtorch, which do not wait for the device.
    pub(super) fn step_on_device(
        &mut self,
        parameters: &mut FlatParameters,
        learning_rate: f64,
    ) -> Result<(), Error> {
        if let Some(max_norm) = self.options.max_gradient_norm {
            let norm = parameters.gradient.f_norm()?.f_add_scalar(CLIP_EPSILON)?;
            let scale = norm.f_reciprocal()?.f_mul_scalar(max_norm)?;
            let scale = scale.f_clamp_max(1.0)?;
            parameters.gradient.f_mul_(&scale).map(drop)?;
        }
        let mut offset = 0;
        for (length, factor) in self.groups.clone() {
            let length = length as i64;
            let group = |tensor: &Tensor| tensor.f_narrow(0, offset, length);
            let (mut buffer, gradient) = (group(&parameters.buffer)?, group(&parameters.gradient)?);
            let (first, second) = (group(&self.first_moment)?, group(&self.second_moment)?);
            let learning_rate = learning_rate * factor;
            let (penalty, shrink) = self.decay(learning_rate);
            let gradient = if penalty == 0.0 {
                gradient
            } else {
                gradient.f_add(&buffer.f_mul_scalar(penalty)?)?
            };
            let update = match self.options.kind {
                OptimizerKind::Sgd => self.velocity(first, &gradient, learning_rate)?,
                OptimizerKind::Adam | OptimizerKind::AdamW => {
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

/// Returns the factor that limits a gradient to a norm (Pascanu et al., 2013, arXiv:1211.5063,
/// algorithm 1).
fn clipping(max_norm: f64, norm: f64) -> f64 {
    (max_norm / (norm + CLIP_EPSILON)).min(1.0)
}
