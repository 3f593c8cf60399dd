//! CPU kernels that update a flat buffer in one pass over memory.
//!
//! Operations of libtorch would read and write the four buffers about twelve times, which takes
//! longer than the backward pass of layer4.

/// Coefficients of one step.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    /// Adam; AdamW if `shrink` is not 1.
    Adam(Adam),
    Sgd(Sgd),
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Adam {
    /// Factor on the gradient, from clipping.
    pub(super) gradient_scale: f32,
    /// 1 - β₁.
    pub(super) first_rate: f32,
    /// β₂.
    pub(super) second_decay: f32,
    /// 1 - β₂.
    pub(super) second_rate: f32,
    /// Step size over 1 - β₁ᵗ.
    pub(super) step_size: f32,
    /// √(1 - β₂ᵗ).
    pub(super) second_correction: f32,
    /// ε.
    pub(super) epsilon: f32,
    /// Factor of the L2 penalty.
    pub(super) penalty: f32,
    /// Factor on the parameter before the step; the decoupled decay of AdamW.
    pub(super) shrink: f32,
}

/// The first moment holds the velocity.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sgd {
    /// Factor on the gradient, from clipping.
    pub(super) gradient_scale: f32,
    pub(super) momentum: f32,
    pub(super) step_size: f32,
    /// Factor of the L2 penalty.
    pub(super) penalty: f32,
}

/// Buffers of equal length.
#[derive(Debug)]
pub(super) struct Buffers<'a> {
    pub(super) parameters: &'a mut [f32],
    pub(super) gradient: &'a [f32],
    pub(super) first_moment: &'a mut [f32],
    pub(super) second_moment: &'a mut [f32],
    /// Receives the new parameters in bf16.
    pub(super) rounded: Option<&'a mut [u16]>,
}

impl<'a> Buffers<'a> {
    pub(super) fn split_at(self, index: usize) -> (Buffers<'a>, Buffers<'a>) {
        let (parameters, later_parameters) = self.parameters.split_at_mut(index);
        let (gradient, later_gradient) = self.gradient.split_at(index);
        let (first_moment, later_first) = self.first_moment.split_at_mut(index);
        let (second_moment, later_second) = self.second_moment.split_at_mut(index);
        let (rounded, later_rounded) = match self.rounded {
            Some(rounded) => {
                let (rounded, later) = rounded.split_at_mut(index);
                (Some(rounded), Some(later))
            }
            None => (None, None),
        };
        (
            Buffers {
                parameters,
                gradient,
                first_moment,
                second_moment,
                rounded,
            },
            Buffers {
                parameters: later_parameters,
                gradient: later_gradient,
                first_moment: later_first,
                second_moment: later_second,
                rounded: later_rounded,
            },
        )
    }
}

/// Updates parameters and moments on several threads, whose number does not affect the result.
pub(super) fn step(buffers: Buffers<'_>, step: Step, threads: usize) {
    let length = buffers.parameters.len().div_ceil(threads.max(1)).max(1);
    std::thread::scope(|scope| {
        let mut rest = buffers;
        while rest.parameters.len() > length {
            let (part, later) = rest.split_at(length);
            rest = later;
            scope.spawn(move || step_part(part, step));
        }
        step_part(rest, step);
    });
}

/// Updates chunks that fit into the cache of the CPU.
fn step_part(mut rest: Buffers<'_>, step: Step) {
    const CHUNK: usize = 4_096;
    while !rest.parameters.is_empty() {
        let length = rest.parameters.len().min(CHUNK);
        let (mut chunk, later) = rest.split_at(length);
        rest = later;
        match step {
            Step::Adam(coefficients) => step_adam(&mut chunk, coefficients),
            Step::Sgd(coefficients) => step_sgd(&mut chunk, coefficients),
        }
        // A separate loop, so that both loops are vectorised.
        if let Some(rounded) = chunk.rounded {
            for (rounded, parameter) in rounded.iter_mut().zip(chunk.parameters.iter()) {
                *rounded = to_bf16(*parameter);
            }
        }
    }
}

fn step_adam(chunk: &mut Buffers<'_>, c: Adam) {
    let moments = chunk
        .first_moment
        .iter_mut()
        .zip(chunk.second_moment.iter_mut());
    let values = chunk.parameters.iter_mut().zip(chunk.gradient.iter());
    for ((parameter, gradient), (first, second)) in values.zip(moments) {
        let gradient = gradient * c.gradient_scale + c.penalty * *parameter;
        *first += (gradient - *first) * c.first_rate;
        *second = *second * c.second_decay + gradient * gradient * c.second_rate;
        let denominator = second.sqrt() / c.second_correction + c.epsilon;
        *parameter = *parameter * c.shrink - c.step_size * (*first / denominator);
    }
}

fn step_sgd(chunk: &mut Buffers<'_>, c: Sgd) {
    let values = chunk.parameters.iter_mut().zip(chunk.gradient.iter());
    for ((parameter, gradient), velocity) in values.zip(chunk.first_moment.iter_mut()) {
        let gradient = gradient * c.gradient_scale + c.penalty * *parameter;
        *velocity = *velocity * c.momentum + gradient;
        *parameter -= c.step_size * *velocity;
    }
}

/// Rounds to the nearest bf16, ties to even, as libtorch. Not for NaN, which ends a training
/// earlier.
fn to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    let rounding = 0x7fff + ((bits >> 16) & 1);
    (bits.wrapping_add(rounding) >> 16) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_is_the_same_for_any_number_of_threads() {
        let adam = Step::Adam(Adam {
            gradient_scale: 0.7,
            first_rate: 0.1,
            second_decay: 0.999,
            second_rate: 0.001,
            step_size: 1e-3,
            second_correction: 0.03,
            epsilon: 1e-8,
            penalty: 0.01,
            shrink: 0.99,
        });
        let sgd = Step::Sgd(Sgd {
            gradient_scale: 0.7,
            momentum: 0.9,
            step_size: 1e-3,
            penalty: 0.01,
        });
        for coefficients in [adam, sgd] {
            let run = |threads: usize| {
                let wave = |scale: f32| (0..1_003).map(|n| (scale * n as f32).sin()).collect();
                let (mut parameters, gradient): (Vec<f32>, Vec<f32>) = (wave(0.3), wave(0.7));
                let (mut first, mut second) = (vec![0.0; 1_003], vec![0.0; 1_003]);
                let mut rounded = vec![0; 1_003];
                for _ in 0..3 {
                    let buffers = Buffers {
                        parameters: &mut parameters,
                        gradient: &gradient,
                        first_moment: &mut first,
                        second_moment: &mut second,
                        rounded: Some(&mut rounded),
                    };
                    step(buffers, coefficients, threads);
                }
                (parameters, rounded)
            };
            let expected = run(1);
            let nearest = |value: &f32| half::bf16::from_f32(*value).to_bits();
            let in_bf16: Vec<u16> = expected.0.iter().map(nearest).collect();
            assert_eq!(expected.1, in_bf16);
            for threads in [2, 3, 16] {
                assert_eq!(run(threads), expected, "{threads} threads");
            }
        }
    }
}
