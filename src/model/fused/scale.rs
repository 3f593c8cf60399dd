//! Activations and gradients in bf16 as f16 factors, scaled by a power of two so that none is too
//! small or too large.

#![expect(
    unsafe_code,
    reason = "it passes pointers to the vector kernels and upholds their contracts"
)]

use std::sync::atomic::{AtomicU16, Ordering};

use super::{
    f16,
    format::Arithmetic,
    kernel,
    memory::{Aligned, Shared},
    threads::Threads,
};

impl Arithmetic {
    /// The scale that converts activations to factors: a power of two, so that nothing is rounded.
    pub(super) fn scale_of(self, activations: &[u16], threads: &Threads) -> f32 {
        match self {
            Arithmetic::Bf16 | Arithmetic::EmulatedBf16 | Arithmetic::F16 | Arithmetic::F32(..) => {
                1.0
            }
            Arithmetic::Mixed => scale_of(largest(activations, threads)),
        }
    }

    /// Activations as factors, with their scale; `room` is used if they differ from the
    /// activations.
    pub(super) fn factors<'a>(
        self,
        activations: &'a [u16],
        threads: &Threads,
        room: &'a mut Aligned<u16>,
    ) -> (&'a [u16], f32) {
        let scale = self.scale_of(activations, threads);
        (
            self.factors_of_scale(activations, scale, threads, room),
            scale,
        )
    }

    /// The same with a given scale.
    pub(super) fn factors_of_scale<'a>(
        self,
        activations: &'a [u16],
        scale: f32,
        threads: &Threads,
        room: &'a mut Aligned<u16>,
    ) -> &'a [u16] {
        if self != Arithmetic::Mixed {
            return activations;
        }
        room.resize(activations.len());
        let out = Shared::new(room.as_mut_slice());
        threads.for_each(activations.len().div_ceil(PIECE), |piece| {
            let begin = piece * PIECE;
            let values = &activations[begin..activations.len().min(begin + PIECE)];
            let place = out.place(begin, values.len());
            // SAFETY: the room has the same length, and no other job has this piece; the
            // instructions are available.
            unsafe { f16::from_bf16(values, scale, place) };
        });
        room.as_slice()
    }

    /// The result of the latest [`Arithmetic::factors`] for these activations with this room.
    pub(super) fn made_factors<'a>(
        self,
        activations: &'a [u16],
        room: &'a Aligned<u16>,
    ) -> &'a [u16] {
        match self {
            Arithmetic::Bf16 | Arithmetic::EmulatedBf16 | Arithmetic::F16 | Arithmetic::F32(..) => {
                activations
            }
            Arithmetic::Mixed => room.as_slice(),
        }
    }
}

/// Activations of a job.
const PIECE: usize = 1 << 16;

/// The bits of the largest magnitude of bf16 values, which have the order of the magnitudes.
fn largest(values: &[u16], threads: &Threads) -> u16 {
    let most = AtomicU16::new(0);
    threads.for_each(values.len().div_ceil(PIECE), |piece| {
        let begin = piece * PIECE;
        let piece = &values[begin..values.len().min(begin + PIECE)];
        // SAFETY: a network exists only where the instructions are available.
        most.fetch_max(unsafe { kernel::magnitude(piece) }, Ordering::Relaxed);
    });
    most.into_inner()
}

/// The power of two that scales a value with these magnitude bits in bf16 to between 2 and 4.
/// Transforms of [`super::winograd`] then stay within 16, and the sum of a pair of chains of
/// products of two of them within 32,768. One with a transformed filter stays within f16 as long as
/// no weight exceeds 14, far above what a network learns; a training with larger ones ends as
/// diverged.
fn scale_of(largest: u16) -> f32 {
    const BIAS: u16 = 127;
    let exponent = largest >> 7;
    // Zero, NaN and infinity have no such power; values near them get a finite scale with a finite
    // inverse.
    let exponent = exponent.clamp(3, 2 * BIAS - 1);
    f32::from_bits(u32::from(2 * BIAS + 1 - exponent) << 23)
}
