//! Adam's update of one flat buffer on the processor, in one pass over memory.
//!
//! libtorch's own operations would read and write the four buffers a dozen times, which for layer4 takes longer than its backward pass.

/// The numbers of one step.
#[derive(Debug, Clone, Copy)]
pub(super) struct Coefficients {
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
    pub(super) weight_decay: f32,
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

/// Updates the parameters and both moments, split among threads; the result does not depend on their number.
pub(super) fn step(buffers: Buffers<'_>, coefficients: Coefficients, threads: usize) {
    let Buffers {
        parameters,
        gradient,
        first_moment,
        second_moment,
        rounded,
    } = buffers;
    let length = parameters.len().div_ceil(threads.max(1)).max(1);
    let mut rounded = rounded.map(|rounded| rounded.chunks_mut(length));
    std::thread::scope(|scope| {
        let mut parts: Vec<Buffers<'_>> = parameters
            .chunks_mut(length)
            .zip(gradient.chunks(length))
            .zip(first_moment.chunks_mut(length))
            .zip(second_moment.chunks_mut(length))
            .map(
                |(((parameters, gradient), first_moment), second_moment)| Buffers {
                    parameters,
                    gradient,
                    first_moment,
                    second_moment,
                    rounded: rounded.as_mut().and_then(Iterator::next),
                },
            )
            .collect();
        // The last part on this thread, which would only wait.
        let own = parts.pop();
        for part in parts {
            scope.spawn(move || step_part(part, coefficients));
        }
        if let Some(part) = own {
            step_part(part, coefficients);
        }
    });
}

/// In pieces that stay in the processor's cache.
fn step_part(buffers: Buffers<'_>, c: Coefficients) {
    const PIECE: usize = 4_096;
    let mut rounded = buffers.rounded.map(|rounded| rounded.chunks_mut(PIECE));
    let pieces = buffers
        .parameters
        .chunks_mut(PIECE)
        .zip(buffers.gradient.chunks(PIECE))
        .zip(buffers.first_moment.chunks_mut(PIECE))
        .zip(buffers.second_moment.chunks_mut(PIECE));
    for (((parameters, gradient), first_moment), second_moment) in pieces {
        step_piece(
            Buffers {
                parameters,
                gradient,
                first_moment,
                second_moment,
                rounded: rounded.as_mut().and_then(Iterator::next),
            },
            c,
        );
    }
}

fn step_piece(buffers: Buffers<'_>, c: Coefficients) {
    let moments = buffers
        .first_moment
        .iter_mut()
        .zip(buffers.second_moment.iter_mut());
    let values = buffers.parameters.iter_mut().zip(buffers.gradient.iter());
    for ((parameter, gradient), (first, second)) in values.zip(moments) {
        let gradient = gradient + c.weight_decay * *parameter;
        *first += (gradient - *first) * c.first_rate;
        *second = *second * c.second_decay + gradient * gradient * c.second_rate;
        let denominator = second.sqrt() / c.second_correction + c.epsilon;
        *parameter -= c.step_size * (*first / denominator);
    }
    // After the loop rather than in it: both stay simple enough for vector instructions.
    if let Some(rounded) = buffers.rounded {
        for (rounded, parameter) in rounded.iter_mut().zip(buffers.parameters.iter()) {
            *rounded = to_bf16(*parameter);
        }
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
        let coefficients = Coefficients {
            first_rate: 0.1,
            second_decay: 0.999,
            second_rate: 0.001,
            step_size: 1e-3,
            second_correction: 0.03,
            epsilon: 1e-8,
            weight_decay: 0.01,
        };
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
