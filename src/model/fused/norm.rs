//! Batch normalisation (Ioffe and Szegedy, 2015, arXiv:1502.03167, algorithm 1) with what comes before and behind it: the residual, and ReLU.
//!
//! Each job has 32 channels of all pixels, which mostly stay in the processor's cache between the passes.

#![expect(
    unsafe_code,
    reason = "vector instructions work on pointers; the network is made only where the processor has them"
)]

use std::arch::x86_64::{
    __m512, __mmask16, _CMP_GT_OQ, _mm512_add_ps, _mm512_cmp_ps_mask, _mm512_fmadd_ps,
    _mm512_loadu_ps, _mm512_maskz_mov_ps, _mm512_max_ps, _mm512_mul_ps, _mm512_set1_ps,
    _mm512_setzero_ps, _mm512_storeu_ps, _mm512_sub_ps,
};

use super::{kernel::CHUNK, memory::Shared, threads::Threads, vectors};

/// torchvision's.
const EPSILON: f32 = 1e-5;
/// The share of a batch in the running statistics, torchvision's too.
const MOMENTUM: f32 = 0.1;
const LANES: usize = 16;
/// Pixels whose values are added up by themselves first, so that sums of many stay exact.
const RUN: usize = 256;

/// Scale and shift, `[channels]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Affine<'a> {
    pub(super) weight: &'a [f32],
    pub(super) bias: &'a [f32],
}

/// Mean and 1 / √(variance + ε) that a batch was normalised with, `[channels]`.
#[derive(Debug, Default, Clone)]
pub(super) struct Statistics {
    mean: Vec<f32>,
    deviation: Vec<f32>,
}

/// What is done with the normalised values `[pixels, channels]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct After<'a> {
    pub(super) residual: Option<&'a [u16]>,
    pub(super) relu: bool,
}

impl Statistics {
    /// Of a batch `[pixels, channels]`; moves the running ones, the variance without bias, as torch.nn.BatchNorm2d does.
    pub(super) fn of_batch(
        values: &[u16],
        running: (&mut [f32], &mut [f32]),
        threads: &Threads,
    ) -> Self {
        let (running_mean, running_variance) = running;
        let channels = running_mean.len();
        let mut made = Statistics {
            mean: vec![0.0; channels],
            deviation: vec![0.0; channels],
        };
        let pixels = values.len() / channels;
        let mut variance = vec![0.0; channels];
        {
            let (mean, variance) = (Shared::new(&mut made.mean), Shared::new(&mut variance));
            threads.for_each(channels / CHUNK, |chunk| {
                let at = chunk * CHUNK;
                let (mean, variance) = (mean.place(at, CHUNK), variance.place(at, CHUNK));
                // SAFETY: all pixels have these channels, which no other job has.
                unsafe { moments(&values[at..], channels, pixels, mean, variance) };
            });
        }
        let unbiased = pixels as f32 / (pixels as f32 - 1.0);
        for channel in 0..channels {
            made.deviation[channel] = 1.0 / (variance[channel] + EPSILON).sqrt();
            let move_to = |running: &mut f32, value: f32| *running += MOMENTUM * (value - *running);
            move_to(&mut running_mean[channel], made.mean[channel]);
            move_to(&mut running_variance[channel], variance[channel] * unbiased);
        }
        made
    }

    /// The running ones.
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
    /// When a buffer does not have the size that the others ask for.
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
        let scale: Vec<f32> = self
            .deviation
            .iter()
            .zip(affine.weight)
            .map(|(a, b)| a * b)
            .collect();
        let shift = self.mean.iter().zip(&scale).zip(affine.bias);
        let shift: Vec<f32> = shift
            .map(|((mean, scale), bias)| bias - mean * scale)
            .collect();
        let out = Shared::new(out);
        threads.for_each(channels / CHUNK, |chunk| {
            let at = chunk * CHUNK;
            for pixel in 0..pixels {
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

    /// Takes the gradient of what [`Statistics::normalise`] made of this batch back to the batch, in place of the gradient, and gives those of scale and shift.
    ///
    /// # Panics
    /// When a buffer does not have the size that the others ask for.
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
        let (scales, shifts) = (Shared::new(weight_gradient), Shared::new(bias_gradient));
        threads.for_each(channels / CHUNK, |chunk| {
            let at = chunk * CHUNK;
            // SAFETY: all pixels have these channels, which no other job has.
            unsafe {
                let start = gradient.place(at, (pixels - 1) * channels + CHUNK);
                let whole = Whole {
                    values: values[at..].as_ptr(),
                    gradient: start,
                    channels,
                    pixels,
                };
                whole.backward(
                    self.mean[at..][..CHUNK].as_ptr(),
                    self.deviation[at..][..CHUNK].as_ptr(),
                    weight[at..][..CHUNK].as_ptr(),
                    scales.place(at, CHUNK),
                    shifts.place(at, CHUNK),
                );
            }
        });
    }
}

/// Keeps the gradient of a rectified value where the value is above zero, in place.
///
/// # Panics
/// When a buffer does not have the size that the other asks for.
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

/// Mean and variance, over pixels, of 32 channels.
///
/// # Safety
/// The processor is available, and all pixels have the channels.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn moments(
    values: &[u16],
    channels: usize,
    pixels: usize,
    mean: *mut f32,
    variance: *mut f32,
) {
    // SAFETY: the caller's promise.
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
            _mm512_storeu_ps(
                variance.add(half * LANES),
                _mm512_mul_ps(squares[half], share),
            );
        }
    }
}

/// Scales, shifts, adds and rectifies 32 channels of a pixel.
///
/// # Safety
/// The processor is available, and all pointers hold 32 values.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn scaled(
    values: *const u16,
    (scale, shift): (*const f32, *const f32),
    residual: Option<*const u16>,
    relu: bool,
    out: *mut u16,
) {
    // SAFETY: the caller's promise.
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
                // In this order a NaN stays one.
                made[half] = _mm512_max_ps(_mm512_setzero_ps(), made[half]);
            }
        }
        vectors::store(made, out);
    }
}

/// 32 channels of all pixels.
#[derive(Debug, Clone, Copy)]
struct Whole {
    values: *const u16,
    gradient: *mut u16,
    channels: usize,
    pixels: usize,
}

impl Whole {
    /// With x̂ = (x - mean) · deviation and g the gradient: those of scale and shift are Σ g x̂ and Σ g, that of x is
    /// weight · deviation · (g - Σ g / n - x̂ Σ g x̂ / n).
    ///
    /// # Safety
    /// The processor is available, and all pointers hold what is read and written.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    unsafe fn backward(
        self,
        mean: *const f32,
        deviation: *const f32,
        weight: *const f32,
        weight_gradient: *mut f32,
        bias_gradient: *mut f32,
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            let both = |from: *const f32| [_mm512_loadu_ps(from), _mm512_loadu_ps(from.add(LANES))];
            let (mean, deviation, weight) = (both(mean), both(deviation), both(weight));
            let zero = [_mm512_setzero_ps(); 2];
            let (mut sums, mut products) = (zero, zero);
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
                    sums[half] = _mm512_add_ps(sums[half], run[half]);
                    products[half] = _mm512_add_ps(products[half], run_products[half]);
                }
            }
            let share = _mm512_set1_ps(1.0 / self.pixels as f32);
            let (mut scale, mut slope, mut offset) = (zero, zero, zero);
            for half in 0..2 {
                let of_scale = _mm512_mul_ps(products[half], deviation[half]);
                _mm512_storeu_ps(bias_gradient.add(half * LANES), sums[half]);
                _mm512_storeu_ps(weight_gradient.add(half * LANES), of_scale);
                scale[half] = _mm512_mul_ps(weight[half], deviation[half]);
                slope[half] = _mm512_mul_ps(_mm512_mul_ps(of_scale, deviation[half]), share);
                offset[half] = _mm512_mul_ps(sums[half], share);
            }
            for pixel in 0..self.pixels {
                let place = self.gradient.add(pixel * self.channels);
                let gradient = vectors::load(place);
                let value = vectors::load(self.values.add(pixel * self.channels));
                let mut made = zero;
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

/// Zeros 32 values where the others are not above zero.
///
/// # Safety
/// The processor is available, and both hold 32 values.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn masked(rectified: *const u16, gradient: *mut u16) {
    // SAFETY: the caller's promise.
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
