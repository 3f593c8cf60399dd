//! Panels of factors in bf16 or in f16 from filters that every training step changes.
//!
//! A filter has the optimizer's layout, `[outputs, taps, inputs]` in f32. For the backward pass
//! outputs and inputs are exchanged and the taps reversed.

#![expect(
    unsafe_code,
    reason = "vector instructions work on pointers; a network exists only where the CPU has them"
)]

use std::arch::x86_64::{
    __m512, __m512i, _mm512_add_ps, _mm512_loadu_ps, _mm512_mul_ps, _mm512_set1_ps,
    _mm512_setzero_ps, _mm512_setzero_si512, _mm512_storeu_si512, _mm512_sub_ps,
};

use super::{
    kernel::{CHUNK, PANEL},
    memory::Shared,
    threads::Threads,
    tiles::{ELEMENTS, TAPS},
    vectors,
};

/// Values of a vector of f32.
const LANES: usize = 16;

/// Transforms a 3×3 filter for [`super::winograd`]: `[outputs / 64][16][inputs / 2][64][2]`.
pub(super) fn winograd(
    in_f16: bool,
    weight: &[f32],
    inputs: usize,
    threads: &Threads,
    panels: &mut [u16],
) {
    let outputs = weight.len() / (TAPS * inputs);
    assert!(inputs.is_multiple_of(CHUNK) && outputs.is_multiple_of(PANEL));
    assert_eq!(panels.len(), ELEMENTS * inputs * outputs);
    let panels = Shared::new(panels);
    threads.for_each(outputs / LANES, |group| {
        let first = group * LANES;
        for chunk in (0..inputs).step_by(CHUNK) {
            let filters = &weight[first * TAPS * inputs..(first + LANES) * TAPS * inputs];
            let at = |element: usize| {
                let row = (first / PANEL * ELEMENTS + element) * (inputs / 2) + chunk / 2;
                // Rows of 64 pairs; this group has 16 of their columns.
                let place = (row * PANEL + first % PANEL) * 2;
                panels.place(place, 2 * PANEL * (LANES - 1) + 2 * LANES)
            };
            // SAFETY: 16 filters with this chunk of channels, and positions within the panels; no
            // other job has these outputs.
            unsafe {
                if in_f16 {
                    winograd_block::<true>(&filters[chunk..], inputs, at);
                } else {
                    winograd_block::<false>(&filters[chunk..], inputs, at);
                }
            };
        }
    });
}

/// 16 filters, 32 of their channels.
///
/// # Safety
/// The CPU has the instructions, the filters hold their channels, and `at` returns room for 16 rows
/// of a panel.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn winograd_block<const IN_F16: bool>(
    filters: &[f32],
    inputs: usize,
    at: impl Fn(usize) -> *mut u16,
) {
    let mut rows = [[_mm512_setzero_si512(); LANES]; ELEMENTS];
    for output in 0..LANES {
        let mut halves = [[_mm512_setzero_ps(); ELEMENTS]; 2];
        for (half, transformed) in halves.iter_mut().enumerate() {
            let mut taps = [_mm512_setzero_ps(); TAPS];
            for (tap, values) in taps.iter_mut().enumerate() {
                let start = (output * TAPS + tap) * inputs + half * LANES;
                // SAFETY: 16 values from there are in the filters.
                *values = unsafe { _mm512_loadu_ps(filters[start..start + LANES].as_ptr()) };
            }
            *transformed = transformed_filter(&taps);
        }
        for (element, rows) in rows.iter_mut().enumerate() {
            rows[output] =
                vectors::rounded::<IN_F16>([halves[0][element], halves[1][element]], true);
        }
    }
    for (element, rows) in rows.iter().enumerate() {
        let out = at(element);
        for (pair, columns) in vectors::transposed(rows).into_iter().enumerate() {
            // SAFETY: guaranteed by the caller.
            unsafe { _mm512_storeu_si512(out.add(pair * 2 * PANEL).cast(), columns) };
        }
    }
}

/// Transforms the same filter for the gradient of the input: `[inputs / 64][16][outputs /
/// 2][64][2]`.
pub(super) fn winograd_backward(
    in_f16: bool,
    weight: &[f32],
    inputs: usize,
    threads: &Threads,
    panels: &mut [u16],
) {
    let outputs = weight.len() / (TAPS * inputs);
    assert!(inputs.is_multiple_of(PANEL) && outputs.is_multiple_of(CHUNK));
    assert_eq!(panels.len(), ELEMENTS * inputs * outputs);
    let panels = Shared::new(panels);
    threads.for_each(outputs / CHUNK, |chunk| {
        for pair in 0..LANES {
            // The pair's positions among the even, then the odd outputs of the chunk.
            let first = chunk * CHUNK + usize::from(vectors::EVEN_ODD[2 * pair]);
            let second = chunk * CHUNK + usize::from(vectors::EVEN_ODD[2 * pair + 1]);
            for column in (0..inputs).step_by(LANES) {
                let filter = |output: usize| &weight[output * TAPS * inputs + column..];
                let at = |element: usize| {
                    let row = (column / PANEL * ELEMENTS + element) * (outputs / 2)
                        + chunk * LANES
                        + pair;
                    panels.place((row * PANEL + column % PANEL) * 2, 2 * LANES)
                };
                // SAFETY: both filters have 16 channels from there, and no other job has this pair.
                unsafe {
                    let (first, second) = (filter(first), filter(second));
                    if in_f16 {
                        backward_pair::<true>(first, second, inputs, at);
                    } else {
                        backward_pair::<false>(first, second, inputs, at);
                    }
                };
            }
        }
    });
}

/// Two filters with reversed taps, 16 of their channels.
///
/// # Safety
/// The CPU has the instructions, and `at` returns room for a vector.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn backward_pair<const IN_F16: bool>(
    first: &[f32],
    second: &[f32],
    inputs: usize,
    at: impl Fn(usize) -> *mut u16,
) {
    let turned = |filter: &[f32]| {
        let mut taps = [_mm512_setzero_ps(); TAPS];
        for (tap, values) in taps.iter_mut().enumerate() {
            let start = (TAPS - 1 - tap) * inputs;
            // SAFETY: 16 values from there are in the filter.
            *values = unsafe { _mm512_loadu_ps(filter[start..start + LANES].as_ptr()) };
        }
        transformed_filter(&taps)
    };
    let (first, second) = (turned(first), turned(second));
    for (element, (first, second)) in first.into_iter().zip(second).enumerate() {
        // SAFETY: guaranteed by the caller.
        unsafe { _mm512_storeu_si512(at(element).cast(), vectors::pairs::<IN_F16>(first, second)) };
    }
}

/// Arranges taps of filters `[outputs, taps, inputs]` for the gradient of the input: `[inputs /
/// 64][taps][outputs / 2][64][2]`. Each tap is a filter and the index of one of its taps.
///
/// # Panics
/// If the size of a buffer does not match the others.
pub(super) fn direct_backward(
    in_f16: bool,
    taps: &[Tap<'_>],
    inputs: usize,
    outputs: usize,
    threads: &Threads,
    panels: &mut [u16],
) {
    assert!(inputs.is_multiple_of(PANEL) && outputs.is_multiple_of(2));
    assert_eq!(panels.len(), taps.len() * inputs * outputs);
    let pairs = outputs / 2;
    let panels = Shared::new(panels);
    threads.for_each(taps.len() * pairs, |job| {
        let (number, pair) = (job / pairs, job % pairs);
        let Tap { weight, count, tap } = taps[number];
        let filter = |output: usize| &weight[(output * count + tap) * inputs..][..inputs];
        let (first, second) = (filter(2 * pair), filter(2 * pair + 1));
        for column in (0..inputs).step_by(LANES) {
            let row = (column / PANEL * taps.len() + number) * pairs + pair;
            let place = panels.place((row * PANEL + column % PANEL) * 2, 2 * LANES);
            let (first, second) = (&first[column..][..LANES], &second[column..][..LANES]);
            // SAFETY: 16 values each, and no other job has this pair of this tap.
            unsafe {
                if in_f16 {
                    direct_pair::<true>(first, second, place);
                } else {
                    direct_pair::<false>(first, second, place);
                }
            }
        }
    });
}

/// One of the `count` taps of a filter `[outputs, count, inputs]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tap<'a> {
    pub(super) weight: &'a [f32],
    pub(super) count: usize,
    pub(super) tap: usize,
}

/// Pairs of the same 16 channels of two filters.
///
/// # Safety
/// The CPU has the instructions, both hold 16 values, and `out` has room for a vector.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn direct_pair<const IN_F16: bool>(first: &[f32], second: &[f32], out: *mut u16) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        let (first, second) = (
            _mm512_loadu_ps(first.as_ptr()),
            _mm512_loadu_ps(second.as_ptr()),
        );
        _mm512_storeu_si512(out.cast(), vectors::pairs::<IN_F16>(first, second));
    }
}

/// G g Gᵀ (Lavin and Gray, 2015, arXiv:1509.09308, section 4.1) for 16 filters.
#[inline]
#[target_feature(enable = "avx512f")]
fn transformed_filter(g: &[__m512; TAPS]) -> [__m512; ELEMENTS] {
    let half = _mm512_set1_ps(0.5);
    let combine = |a: __m512, b: __m512, c: __m512| {
        let ends = _mm512_add_ps(a, c);
        [
            a,
            _mm512_mul_ps(half, _mm512_add_ps(ends, b)),
            _mm512_mul_ps(half, _mm512_sub_ps(ends, b)),
            c,
        ]
    };
    let columns = [
        combine(g[0], g[3], g[6]),
        combine(g[1], g[4], g[7]),
        combine(g[2], g[5], g[8]),
    ];
    let mut both = [_mm512_setzero_ps(); ELEMENTS];
    for y in 0..4 {
        let row = combine(columns[0][y], columns[1][y], columns[2][y]);
        both[4 * y..4 * y + 4].copy_from_slice(&row);
    }
    both
}

/// Arranges a filter for [`super::direct`]: `[outputs / 64][taps][inputs / 2][64][2]`.
pub(super) fn direct(
    in_f16: bool,
    weight: &[f32],
    inputs: usize,
    taps: usize,
    threads: &Threads,
    panels: &mut [u16],
) {
    let outputs = weight.len() / (taps * inputs);
    assert!(inputs.is_multiple_of(CHUNK) && outputs.is_multiple_of(PANEL));
    assert_eq!(panels.len(), weight.len());
    let panels = Shared::new(panels);
    threads.for_each(outputs / LANES, |group| {
        let first = group * LANES;
        for tap in 0..taps {
            for chunk in (0..inputs).step_by(CHUNK) {
                let row = (first / PANEL * taps + tap) * (inputs / 2) + chunk / 2;
                let place = (row * PANEL + first % PANEL) * 2;
                let out = panels.place(place, 2 * PANEL * (LANES - 1) + 2 * LANES);
                let filter = |output: usize| {
                    &weight[((first + output) * taps + tap) * inputs + chunk..][..CHUNK]
                };
                // SAFETY: each filter has 32 channels from there, and no other job has these
                // outputs.
                unsafe {
                    if in_f16 {
                        direct_block::<true>(filter, out);
                    } else {
                        direct_block::<false>(filter, out);
                    }
                };
            }
        }
    });
}

/// 16 filters, 32 channels of a tap.
///
/// # Safety
/// The CPU has the instructions, and `out` has room for 16 rows of a panel.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn direct_block<'a, const IN_F16: bool>(filter: impl Fn(usize) -> &'a [f32], out: *mut u16) {
    let mut rows: [__m512i; LANES] = [_mm512_setzero_si512(); LANES];
    for (output, row) in rows.iter_mut().enumerate() {
        let channels = filter(output);
        // SAFETY: 32 values.
        let halves = unsafe {
            [
                _mm512_loadu_ps(channels.as_ptr()),
                _mm512_loadu_ps(channels[LANES..].as_ptr()),
            ]
        };
        *row = vectors::rounded::<IN_F16>(halves, false);
    }
    for (pair, columns) in vectors::transposed(&rows).into_iter().enumerate() {
        // SAFETY: guaranteed by the caller.
        unsafe { _mm512_storeu_si512(out.add(pair * 2 * PANEL).cast(), columns) };
    }
}
