//! Batch normalisation (Ioffe and Szegedy, 2015, arXiv:1502.03167, algorithm 1) with the residual
//! and ReLU after it, forward and backward.
//!
//! Each job has 32 channels of a piece of the pixels, which stays in the CPU's cache between its
//! passes.

#![expect(
    unsafe_code,
    reason = "vector instructions work on pointers; a network exists only where the CPU has them"
)]

use std::arch::x86_64::{
    __m512, __mmask16, _CMP_GT_OQ, _mm512_add_ps, _mm512_cmp_ps_mask, _mm512_fmadd_ps,
    _mm512_loadu_ps, _mm512_maskz_mov_ps, _mm512_max_ps, _mm512_mul_ps, _mm512_set1_ps,
    _mm512_setzero_ps, _mm512_storeu_ps, _mm512_sub_ps,
};

use super::{super::moments::joined, kernel::CHUNK, memory::Shared, threads::Threads, vectors};

/// torchvision's default.
const EPSILON: f32 = 1e-5;
/// The share of a batch in the running statistics, torchvision's default.
pub(super) const MOMENTUM: f32 = 0.1;
const LANES: usize = 16;
/// Pixels that are summed separately first, so that large sums stay precise.
const RUN: usize = 256;
/// Pixels of a job, with 32 channels each: they stay in the CPU's cache between two passes.
const PIECE: usize = 8 * 1_024;

/// Scale and shift, `[channels]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Affine<'a> {
    pub(super) weight: &'a [f32],
    pub(super) bias: &'a [f32],
}

/// Mean and 1 / √(variance + ε) for normalising a batch, `[channels]`.
#[derive(Debug, Default, Clone)]
pub(super) struct Statistics {
    mean: Vec<f32>,
    deviation: Vec<f32>,
}

/// The epilogue of the normalised values `[pixels, channels]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct After<'a> {
    pub(super) residual: Option<&'a [u16]>,
    pub(super) relu: bool,
}

impl Statistics {
    /// Computes the statistics of a batch `[pixels, channels]` and updates the running ones like
    /// torch.nn.BatchNorm2d with this momentum.
    pub(super) fn of_batch(
        values: &[u16],
        running: (&mut [f32], &mut [f32]),
        momentum: f32,
        threads: &Threads,
    ) -> Self {
        let (running_mean, running_variance) = running;
        let channels = running_mean.len();
        let mut made = Statistics {
            mean: vec![0.0; channels],
            deviation: vec![0.0; channels],
        };
        let pixels = values.len() / channels;
        let pieces = pixels.div_ceil(PIECE);
        let (mut means, mut squares) = (vec![0.0; pieces * channels], vec![0.0; pieces * channels]);
        {
            let (means, squares) = (Shared::new(&mut means), Shared::new(&mut squares));
            for_pieces(pixels, channels, threads, |piece, pixels, at| {
                let place = piece * channels + at;
                let (mean, squares) = (means.place(place, CHUNK), squares.place(place, CHUNK));
                let values = &values[pixels.start * channels + at..];
                // SAFETY: all pixels have these channels, which no other job has.
                unsafe { moments(values, channels, pixels.len(), mean, squares) };
            });
        }
        let unbiased = pixels as f32 / (pixels as f32 - 1.0);
        for channel in 0..channels {
            let of_piece = |piece: usize| {
                let place = piece * channels + channel;
                let count = PIECE.min(pixels - piece * PIECE) as f64;
                (count, f64::from(means[place]), f64::from(squares[place]))
            };
            let (_, mean, squares) = (0..pieces).map(of_piece).fold((0.0, 0.0, 0.0), joined);
            let variance = (squares / pixels as f64) as f32;
            made.mean[channel] = mean as f32;
            made.deviation[channel] = 1.0 / (variance + EPSILON).sqrt();
            let move_to = |running: &mut f32, value: f32| {
                if momentum == 1.0 {
                    // Without the rounding of a difference.
                    *running = value;
                } else {
                    *running += momentum * (value - *running);
                }
            };
            move_to(&mut running_mean[channel], made.mean[channel]);
            move_to(&mut running_variance[channel], variance * unbiased);
        }
        made
    }

    /// The running statistics.
    pub(super) fn running(mean: &[f32], variance: &[f32]) -> Self {
        let deviation = variance
            .iter()
            .map(|variance| 1.0 / (variance + EPSILON).sqrt());
        Statistics {
            mean: mean.to_vec(),
            deviation: deviation.collect(),
        }
    }

    /// Normalises.
    ///
    /// # Panics
    /// If the size of a buffer does not match the others.
    pub(super) fn normalise(
        &self,
        values: &[u16],
        affine: Affine<'_>,
        after: After<'_>,
        threads: &Threads,
        out: &mut [u16],
    ) {
        let channels = self.mean.len();
        let pixels = values.len() / channels;
        assert_eq!(out.len(), values.len());
        assert!(
            after
                .residual
                .is_none_or(|residual| residual.len() == values.len())
        );
        let (scale, shift) = self.scale_and_shift(affine);
        let out = Shared::new(out);
        for_pieces(pixels, channels, threads, |_, pixels, at| {
            for pixel in pixels {
                let place = pixel * channels + at;
                let residual = after
                    .residual
                    .map(|residual| residual[place..][..CHUNK].as_ptr());
                // SAFETY: 32 channels each, which no other job has.
                unsafe {
                    scaled(
                        values[place..][..CHUNK].as_ptr(),
                        (scale[at..][..CHUNK].as_ptr(), shift[at..][..CHUNK].as_ptr()),
                        residual,
                        after.relu,
                        out.place(place, CHUNK),
                    );
                }
            }
        });
    }

    /// Scale and shift that normalise values in one step: value · scale + shift, `[channels]`.
    pub(super) fn scale_and_shift(&self, affine: Affine<'_>) -> (Vec<f32>, Vec<f32>) {
        let scale = self.deviation.iter().zip(affine.weight);
        let scale: Vec<f32> = scale.map(|(a, b)| a * b).collect();
        let shift = self.mean.iter().zip(&scale).zip(affine.bias);
        let shift = shift.map(|((mean, scale), bias)| bias - mean * scale);
        let shift = shift.collect();
        (scale, shift)
    }

    /// Propagates the gradient of the output of [`Statistics::normalise`] to its input, in place,
    /// and returns those of scale and shift.
    ///
    /// # Panics
    /// If the size of a buffer does not match the others.
    pub(super) fn backward(
        &self,
        values: &[u16],
        weight: &[f32],
        threads: &Threads,
        gradient: &mut [u16],
        (weight_gradient, bias_gradient): (&mut [f32], &mut [f32]),
    ) {
        let channels = self.mean.len();
        let pixels = values.len() / channels;
        assert_eq!(gradient.len(), values.len());
        let gradient = Shared::new(gradient);
        let pieces = pixels.div_ceil(PIECE);
        let mut sums = vec![0.0; 2 * pieces * channels];
        let whole = |pixels: std::ops::Range<usize>, at: usize| {
            let begin = pixels.start * channels + at;
            let length = (pixels.len() - 1) * channels + CHUNK;
            Whole {
                values: values[begin..begin + length].as_ptr(),
                gradient: gradient.place(begin, length),
                channels,
                pixels: pixels.len(),
            }
        };
        {
            let sums = Shared::new(&mut sums);
            for_pieces(pixels, channels, threads, |piece, pixels, at| {
                let place = |which: usize| sums.place((2 * piece + which) * channels + at, CHUNK);
                let mean = self.mean[at..][..CHUNK].as_ptr();
                // SAFETY: all pixels have these channels, which no other job has.
                unsafe { whole(pixels, at).sums(mean, place(0), place(1)) };
            });
        }
        // For each channel: the common factor, Σ g x̂ deviation / n and Σ g / n.
        let mut parts = [
            vec![0.0; channels],
            vec![0.0; channels],
            vec![0.0; channels],
        ];
        for channel in 0..channels {
            let sum = |which: usize| -> f32 {
                let of_piece = |piece: usize| sums[(2 * piece + which) * channels + channel];
                (0..pieces).map(of_piece).sum()
            };
            let deviation = self.deviation[channel];
            let of_scale = sum(1) * deviation;
            bias_gradient[channel] = sum(0);
            weight_gradient[channel] = of_scale;
            parts[0][channel] = weight[channel] * deviation;
            parts[1][channel] = of_scale * deviation / pixels as f32;
            parts[2][channel] = sum(0) / pixels as f32;
        }
        for_pieces(pixels, channels, threads, |_, pixels, at| {
            let part = |values: &[f32]| values[at..][..CHUNK].as_ptr();
            let parts = [part(&parts[0]), part(&parts[1]), part(&parts[2])];
            // SAFETY: all pixels have these channels, which no other job has.
            unsafe { whole(pixels, at).apply(part(&self.mean), parts) };
        });
    }
}

/// Calls the function for pieces of the pixels, with their index and the pixels, and for each
/// [`CHUNK`] of channels, with the first of them. Pieces depend on the shape only, so that sums do
/// not depend on the number of threads.
fn for_pieces(
    pixels: usize,
    channels: usize,
    threads: &Threads,
    work: impl Fn(usize, std::ops::Range<usize>, usize) + Sync + Send,
) {
    let chunks = channels / CHUNK;
    threads.for_each(pixels.div_ceil(PIECE) * chunks, |job| {
        let (piece, chunk) = (job / chunks, job % chunks);
        let first = piece * PIECE;
        work(piece, first..pixels.min(first + PIECE), chunk * CHUNK);
    });
}

/// The backward pass of ReLU, in place: keeps the gradient where the value is above zero.
///
/// # Panics
/// If the lengths differ.
pub(super) fn rectify_backward(rectified: &[u16], threads: &Threads, gradient: &mut [u16]) {
    const PART: usize = 64 * 1_024;
    assert_eq!(rectified.len(), gradient.len());
    let length = rectified.len();
    let gradient = Shared::new(gradient);
    threads.for_each(length.div_ceil(PART), |part| {
        for place in (part * PART..length.min((part + 1) * PART)).step_by(CHUNK) {
            // SAFETY: 32 values each, which no other job has.
            unsafe {
                masked(
                    rectified[place..][..CHUNK].as_ptr(),
                    gradient.place(place, CHUNK),
                )
            };
        }
    });
}

/// Mean and sum of squared differences from it, over pixels, of 32 channels.
///
/// # Safety
/// The CPU has the instructions, and all pixels have the channels.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn moments(
    values: &[u16],
    channels: usize,
    pixels: usize,
    mean: *mut f32,
    squared: *mut f32,
) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        let share = _mm512_set1_ps(1.0 / pixels as f32);
        let zero = [_mm512_setzero_ps(); 2];
        let mut sums = zero;
        for first in (0..pixels).step_by(RUN) {
            let mut run = zero;
            for pixel in first..pixels.min(first + RUN) {
                let value = vectors::load(values[pixel * channels..][..CHUNK].as_ptr());
                run = [
                    _mm512_add_ps(run[0], value[0]),
                    _mm512_add_ps(run[1], value[1]),
                ];
            }
            sums = [
                _mm512_add_ps(sums[0], run[0]),
                _mm512_add_ps(sums[1], run[1]),
            ];
        }
        let means = sums.map(|sum| _mm512_mul_ps(sum, share));
        let mut squares = zero;
        for first in (0..pixels).step_by(RUN) {
            let mut run = zero;
            for pixel in first..pixels.min(first + RUN) {
                let value = vectors::load(values[pixel * channels..][..CHUNK].as_ptr());
                for half in 0..2 {
                    let from_mean = _mm512_sub_ps(value[half], means[half]);
                    run[half] = _mm512_fmadd_ps(from_mean, from_mean, run[half]);
                }
            }
            squares = [
                _mm512_add_ps(squares[0], run[0]),
                _mm512_add_ps(squares[1], run[1]),
            ];
        }
        for half in 0..2 {
            _mm512_storeu_ps(mean.add(half * LANES), means[half]);
            _mm512_storeu_ps(squared.add(half * LANES), squares[half]);
        }
    }
}

/// Scales, shifts, adds the residual and applies ReLU to 32 channels of a pixel.
///
/// # Safety
/// The CPU has the instructions, and all pointers hold 32 values.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn scaled(
    values: *const u16,
    (scale, shift): (*const f32, *const f32),
    residual: Option<*const u16>,
    relu: bool,
    out: *mut u16,
) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        let values = vectors::load(values);
        let added = residual.map(|residual| vectors::load(residual));
        let mut made = [_mm512_setzero_ps(); 2];
        for half in 0..2 {
            let (scale, shift) = (
                _mm512_loadu_ps(scale.add(half * LANES)),
                _mm512_loadu_ps(shift.add(half * LANES)),
            );
            made[half] = _mm512_fmadd_ps(values[half], scale, shift);
            if let Some(added) = &added {
                made[half] = _mm512_add_ps(made[half], added[half]);
            }
            if relu {
                // In this operand order NaN persists.
                made[half] = _mm512_max_ps(_mm512_setzero_ps(), made[half]);
            }
        }
        vectors::store(made, out);
    }
}

/// 32 channels of a piece of the pixels.
#[derive(Debug, Clone, Copy)]
struct Whole {
    values: *const u16,
    gradient: *mut u16,
    channels: usize,
    pixels: usize,
}

impl Whole {
    /// Σ g and Σ g (x - mean).
    ///
    /// # Safety
    /// The CPU has the instructions, and all pointers hold what is read and written.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn sums(self, mean: *const f32, sums: *mut f32, products: *mut f32) {
        // SAFETY: guaranteed by the caller.
        unsafe {
            let mean = both(mean);
            let zero = [_mm512_setzero_ps(); 2];
            let (mut all, mut all_products) = (zero, zero);
            for first in (0..self.pixels).step_by(RUN) {
                let (mut run, mut run_products) = (zero, zero);
                for pixel in first..self.pixels.min(first + RUN) {
                    let gradient = vectors::load(self.gradient.add(pixel * self.channels));
                    let value = vectors::load(self.values.add(pixel * self.channels));
                    for half in 0..2 {
                        let from_mean = _mm512_sub_ps(value[half], mean[half]);
                        run[half] = _mm512_add_ps(run[half], gradient[half]);
                        run_products[half] =
                            _mm512_fmadd_ps(gradient[half], from_mean, run_products[half]);
                    }
                }
                for half in 0..2 {
                    all[half] = _mm512_add_ps(all[half], run[half]);
                    all_products[half] = _mm512_add_ps(all_products[half], run_products[half]);
                }
            }
            for half in 0..2 {
                _mm512_storeu_ps(sums.add(half * LANES), all[half]);
                _mm512_storeu_ps(products.add(half * LANES), all_products[half]);
            }
        }
    }

    /// With x̂ = (x - mean) · deviation and the gradient g, the gradients of scale and shift are Σ
    /// g x̂ and Σ g, and that of x is weight · deviation · (g - Σ g / n - x̂ Σ g x̂ / n). The
    /// arguments are its three parts that all pixels share.
    ///
    /// # Safety
    /// As for [`Whole::sums`].
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn apply(self, mean: *const f32, parts: [*const f32; 3]) {
        // SAFETY: guaranteed by the caller.
        unsafe {
            let mean = both(mean);
            let [scale, slope, offset] = parts.map(|part| both(part));
            for pixel in 0..self.pixels {
                let place = self.gradient.add(pixel * self.channels);
                let gradient = vectors::load(place);
                let value = vectors::load(self.values.add(pixel * self.channels));
                let mut made = [_mm512_setzero_ps(); 2];
                for half in 0..2 {
                    let from_mean = _mm512_sub_ps(value[half], mean[half]);
                    let centred = _mm512_sub_ps(gradient[half], offset[half]);
                    let rest = _mm512_sub_ps(centred, _mm512_mul_ps(from_mean, slope[half]));
                    made[half] = _mm512_mul_ps(scale[half], rest);
                }
                vectors::store(made, place);
            }
        }
    }
}

/// 32 values in f32.
///
/// # Safety
/// The CPU has the instructions, and the pointer holds them.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn both(from: *const f32) -> [__m512; 2] {
    // SAFETY: guaranteed by the caller.
    unsafe { [_mm512_loadu_ps(from), _mm512_loadu_ps(from.add(LANES))] }
}

/// Zeroes 32 values where the others are not above zero.
///
/// # Safety
/// The CPU has the instructions, and both hold 32 values.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn masked(rectified: *const u16, gradient: *mut u16) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        let (passed, values) = (vectors::load(rectified), vectors::load(gradient));
        let mut kept: [__m512; 2] = values;
        for half in 0..2 {
            let is_positive: __mmask16 =
                _mm512_cmp_ps_mask::<_CMP_GT_OQ>(passed[half], _mm512_setzero_ps());
            kept[half] = _mm512_maskz_mov_ps(is_positive, values[half]);
        }
        vectors::store(kept, gradient);
    }
}
