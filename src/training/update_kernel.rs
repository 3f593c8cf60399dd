//! The optimizers' update of one flat buffer on the processor, in one pass over memory.
//!
//! libtorch's own operations would read and write the four buffers a dozen times, which for layer4 takes longer than its backward pass.

/// The numbers of one step.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    /// Adam, or AdamW where `shrink` is not 1.
    Adam(Adam),
    /// Stochastic gradient descent.
    Sgd(Sgd),
}

/// The numbers of a step of Adam.
#[derive(Debug, Clone, Copy)]
pub(super) struct Adam {
    /// Factor on the gradient, to clip it.
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
    /// Added to the gradient, times the parameter.
    pub(super) penalty: f32,
    /// Factor on the parameter before the step.
    pub(super) shrink: f32,
}

/// The numbers of a step of stochastic gradient descent; the first moment holds the velocity.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sgd {
    /// Factor on the gradient, to clip it.
    pub(super) gradient_scale: f32,
    /// Factor on the velocity.
    pub(super) momentum: f32,
    /// Learning rate.
    pub(super) step_size: f32,
    /// Added to the gradient, times the parameter.
    pub(super) penalty: f32,
}

/// The buffers, all of one length.
#[derive(Debug)]
pub(super) struct Buffers<'a> {
    pub(super) parameters: &'a mut [f32],
    pub(super) gradient: &'a [f32],
    pub(super) first_moment: &'a mut [f32],
    pub(super) second_moment: &'a mut [f32],
    /// Gets the new parameters in bf16.
    pub(super) rounded: Option<&'a mut [u16]>,
}

impl<'a> Buffers<'a> {
    /// The parts before and from a place.
    pub(super) fn split_at(self, place: usize) -> (Buffers<'a>, Buffers<'a>) {
        let (parameters, later_parameters) = self.parameters.split_at_mut(place);
        let (gradient, later_gradient) = self.gradient.split_at(place);
        let (first_moment, later_first) = self.first_moment.split_at_mut(place);
        let (second_moment, later_second) = self.second_moment.split_at_mut(place);
        let (rounded, later_rounded) = match self.rounded {
            Some(rounded) => {
                let (rounded, later) = rounded.split_at_mut(place);
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

/// Updates parameters and moments, split among threads; the result does not depend on their number.
pub(super) fn step(buffers: Buffers<'_>, step: Step, threads: usize) {
    let length = buffers.parameters.len().div_ceil(threads.max(1)).max(1);
    std::thread::scope(|scope| {
        let mut rest = buffers;
        while rest.parameters.len() > length {
            let (part, later) = rest.split_at(length);
            rest = later;
            scope.spawn(move || step_part(part, step));
        }
        // The last part on this thread, which would only wait.
        step_part(rest, step);
    });
}

/// In pieces that stay in the processor's cache.
fn step_part(mut rest: Buffers<'_>, step: Step) {
    const PIECE: usize = 4_096;
    while !rest.parameters.is_empty() {
        let length = rest.parameters.len().min(PIECE);
        let (mut piece, later) = rest.split_at(length);
        rest = later;
        match step {
            Step::Adam(numbers) => step_adam(&mut piece, numbers),
            Step::Sgd(numbers) => step_sgd(&mut piece, numbers),
        }
        // After the loop over the piece rather than in it: both stay simple enough for vector instructions.
        if let Some(rounded) = piece.rounded {
            for (rounded, parameter) in rounded.iter_mut().zip(piece.parameters.iter()) {
                *rounded = to_bf16(*parameter);
            }
        }
    }
}

fn step_adam(piece: &mut Buffers<'_>, c: Adam) {
    let moments = piece
        .first_moment
        .iter_mut()
        .zip(piece.second_moment.iter_mut());
    let values = piece.parameters.iter_mut().zip(piece.gradient.iter());
    for ((parameter, gradient), (first, second)) in values.zip(moments) {
        let gradient = gradient * c.gradient_scale + c.penalty * *parameter;
        *first += (gradient - *first) * c.first_rate;
        *second = *second * c.second_decay + gradient * gradient * c.second_rate;
        let denominator = second.sqrt() / c.second_correction + c.epsilon;
        *parameter = *parameter * c.shrink - c.step_size * (*first / denominator);
    }
}

fn step_sgd(piece: &mut Buffers<'_>, c: Sgd) {
    let values = piece.parameters.iter_mut().zip(piece.gradient.iter());
    for ((parameter, gradient), velocity) in values.zip(piece.first_moment.iter_mut()) {
        let gradient = gradient * c.gradient_scale + c.penalty * *parameter;
        *velocity = *velocity * c.momentum + gradient;
        *parameter -= c.step_size * *velocity;
    }
}

/// Rounds to the nearest bf16, ties to even, as libtorch does; not for NaN, which ends a training before.
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
        for numbers in [adam, sgd] {
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
                    step(buffers, numbers, threads);
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
