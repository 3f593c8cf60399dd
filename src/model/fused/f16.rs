//! Vector kernels for CPUs with AVX512_FP16: the functions of [`super::kernel`] in f16.
//!
//! They multiply four times as many values per second as those of bf16, and f16 rounds eight times
//! finer. There are two costs: f16 ends at 65,504, which [`super::network`] guards, and sums are
//! f16 too. A lane therefore adds at most [`CHAIN`] products before its sum is added to the
//! previous ones, as in blocked summation (Higham, 2002, Accuracy and Stability of Numerical
//! Algorithms, section 4.2).
//!
//! A panel is 64 columns of a matrix with rows in pairs as in `kernel`, and with the even columns
//! before the odd ones in each 32: `[K/2][2][2][16][2]`. Each lane adds the products of one row of
//! its pair. The sums of the two lanes of even and of odd columns are then positioned so that two
//! blends and a rotation restore the order of the columns.

#![expect(
    unsafe_code,
    reason = "vector instructions work on pointers and need a CPU that has them, which `available` checks"
)]

use std::arch::x86_64::{
    __m512, __m512h, _mm256_storeu_si256, _mm512_add_ph, _mm512_add_ps, _mm512_castph_si512,
    _mm512_castsi512_ph, _mm512_castsi512_si256, _mm512_cvtph_ps, _mm512_cvtps_ph,
    _mm512_extracti64x4_epi64, _mm512_fmadd_ph, _mm512_loadu_ps, _mm512_loadu_si512,
    _mm512_mask_blend_epi16, _mm512_max_ph, _mm512_mul_ps, _mm512_rol_epi32, _mm512_set1_epi32,
    _mm512_set1_ps, _mm512_setzero_ph, _mm512_setzero_ps, _mm512_storeu_si512, _mm512_sub_ph,
};

use super::{
    kernel::{self, CHUNK, Finish, PANEL, ROWS, Rows, for_rows},
    vectors::{self, NEAREST},
};

/// Products that a lane adds in f16 before its sum is added to others.
const CHAIN: usize = 32;
/// The same where the sums of chains are added in f32: conversion is expensive, so there are fewer
/// chains.
const WIDE_CHAIN: usize = 64;
/// Lanes with odd numbers.
const ODD: u32 = 0xaaaa_aaaa;

/// Returns whether this CPU has the instructions.
pub(super) fn available() -> bool {
    std::arch::is_x86_feature_detected!("avx512f")
        && std::arch::is_x86_feature_detected!("avx512bw")
        && std::arch::is_x86_feature_detected!("avx512vl")
        && std::arch::is_x86_feature_detected!("avx512fp16")
}

/// Position of a column of a panel among the 64 of a pair of rows.
pub(super) const fn place_of(column: usize) -> usize {
    column / 32 * 32 + column % 2 * 16 + column % 32 / 2
}

type Sums = [[__m512h; 2]; ROWS];
/// The same in f32.
type WideSums = [kernel::Sums; ROWS];

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512fp16")]
unsafe fn load(values: *const u16) -> __m512h {
    // SAFETY: the caller guarantees 32 values.
    unsafe { _mm512_castsi512_ph(_mm512_loadu_si512(values.cast())) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512fp16")]
unsafe fn store(values: __m512h, out: *mut u16) {
    // SAFETY: the caller guarantees room for 32 values.
    unsafe { _mm512_storeu_si512(out.cast(), _mm512_castph_si512(values)) }
}

/// ReLU; NaN persists. [`super::kernel::largest`] would take the bits of a negative zero for a
/// large value, so zero is added to it.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512fp16")]
fn rectified(values: __m512h) -> __m512h {
    let zero = _mm512_setzero_ph();
    _mm512_add_ph(_mm512_max_ph(zero, values), zero)
}

/// The sums of 32 columns in order, from the even and the odd columns, each with two sums.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512fp16")]
fn joined(even: __m512h, odd: __m512h) -> __m512h {
    let (even, odd) = (_mm512_castph_si512(even), _mm512_castph_si512(odd));
    let ones = _mm512_mask_blend_epi16(ODD, even, odd);
    let others = _mm512_rol_epi32::<16>(_mm512_mask_blend_epi16(ODD, odd, even));
    _mm512_add_ph(_mm512_castsi512_ph(ones), _mm512_castsi512_ph(others))
}

/// Adds the products of a pair of each row, `at` values after the row's start, with a pair of rows
/// of a panel.
///
/// # Safety
/// The CPU has the instructions ([`available`]), the rows hold the pair and the panel 128 values.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512fp16")]
unsafe fn add_pair<const R: usize>(
    sums: &mut [[__m512h; 4]; ROWS],
    rows: &[*const u16; ROWS],
    at: usize,
    panel: *const u16,
) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        let columns = [
            load(panel),
            load(panel.add(CHUNK)),
            load(panel.add(2 * CHUNK)),
            load(panel.add(3 * CHUNK)),
        ];
        for row in 0..R {
            let two = rows[row].add(at).cast::<i32>();
            let factor = _mm512_castsi512_ph(_mm512_set1_epi32(two.read_unaligned()));
            for column in 0..4 {
                let sum = sums[row][column];
                sums[row][column] = _mm512_fmadd_ph(factor, columns[column], sum);
            }
        }
    }
}

/// The sums over taps of rows times panels, for `R` rows.
///
/// # Safety
/// The CPU has the instructions ([`available`]), the rows hold their pairs and `panel` has `taps *
/// pairs * 2 * PANEL` values.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512fp16")]
unsafe fn sums_of<const R: usize>(rows: Rows<'_>, mut panel: *const u16) -> Sums {
    // SAFETY: guaranteed by the caller.
    unsafe {
        let zero = _mm512_setzero_ph();
        let mut totals = [[zero; 2]; ROWS];
        let mut sums = [[zero; 4]; ROWS];
        let mut chained = 0;
        for tap in rows.taps {
            let mut done = 0;
            while done < rows.pairs {
                let now = (rows.pairs - done).min(CHAIN - chained);
                for pair in done..done + now {
                    add_pair::<R>(&mut sums, tap, rows.step * pair, panel);
                    panel = panel.add(2 * PANEL);
                }
                done += now;
                chained += now;
                if chained == CHAIN {
                    add_chains::<R>(&mut totals, &sums);
                    sums = [[zero; 4]; ROWS];
                    chained = 0;
                }
            }
        }
        if chained > 0 {
            add_chains::<R>(&mut totals, &sums);
        }
        totals
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512fp16")]
fn add_chains<const R: usize>(totals: &mut Sums, sums: &[[__m512h; 4]; ROWS]) {
    for row in 0..R {
        let [a, b, c, d] = sums[row];
        totals[row][0] = _mm512_add_ph(totals[row][0], joined(a, b));
        totals[row][1] = _mm512_add_ph(totals[row][1], joined(c, d));
    }
}

/// The same for as many rows as there are.
///
/// # Safety
/// As for [`sums_of`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512fp16")]
unsafe fn sums(rows: Rows<'_>, panel: *const u16) -> Sums {
    // SAFETY: guaranteed by the caller.
    unsafe { for_rows!(sums_of, rows, panel) }
}

/// The sums over taps of rows times panels with columns as in `kernel`, for `R` rows. Chains are
/// added in f32.
///
/// # Safety
/// As for [`sums_of`], and the CPU also has the instructions of [`super::kernel`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512fp16")]
unsafe fn wide_sums_of<const R: usize>(rows: Rows<'_>, mut panel: *const u16) -> WideSums {
    // SAFETY: guaranteed by the caller.
    unsafe {
        let zero = _mm512_setzero_ph();
        let mut totals = [[_mm512_setzero_ps(); 4]; ROWS];
        for tap in rows.taps {
            for begin in (0..rows.pairs).step_by(WIDE_CHAIN) {
                let mut sums = [[zero; 4]; ROWS];
                for pair in begin..rows.pairs.min(begin + WIDE_CHAIN) {
                    add_pair::<R>(&mut sums, tap, rows.step * pair, panel);
                    panel = panel.add(2 * PANEL);
                }
                for row in 0..R {
                    let [a, b, c, d] = sums[row];
                    let [e, f] = widened(joined(a, b));
                    let [g, h] = widened(joined(c, d));
                    for (total, sum) in totals[row].iter_mut().zip([e, f, g, h]) {
                        *total = _mm512_add_ps(*total, sum);
                    }
                }
            }
        }
        totals
    }
}

/// The sums of even and odd lanes that [`joined`] combined, separately and in f32.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512fp16")]
fn widened(sums: __m512h) -> [__m512; 2] {
    let apart = vectors::even_before_odd(_mm512_castph_si512(sums));
    [
        _mm512_cvtph_ps(_mm512_castsi512_si256(apart)),
        _mm512_cvtph_ps(_mm512_extracti64x4_epi64(apart, 1)),
    ]
}

/// The same for as many rows as there are, times a factor.
///
/// # Safety
/// As for [`wide_sums_of`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512fp16")]
unsafe fn wide_sums(rows: Rows<'_>, panel: *const u16, factor: f32) -> WideSums {
    // SAFETY: guaranteed by the caller.
    let mut sums = unsafe { for_rows!(wide_sums_of, rows, panel) };
    for sum in sums.as_flattened_mut() {
        *sum = _mm512_mul_ps(*sum, _mm512_set1_ps(factor));
    }
    sums
}

/// Stores rows of products times a factor in f32: row r at `out + r * stride`.
///
/// # Safety
/// As for [`wide_sums_of`], and `out` holds the rows.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512fp16")]
pub(super) unsafe fn wide_product(
    rows: Rows<'_>,
    panel: *const u16,
    factor: f32,
    out: *mut f32,
    stride: usize,
) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        let sums = wide_sums(rows, panel, factor);
        for (row, sums) in sums.into_iter().enumerate().take(rows.count) {
            kernel::store_row(sums, out.add(row * stride));
        }
    }
}

/// Adds rows of products times a factor to rows of f32: row r at `out + r * stride`.
///
/// # Safety
/// As for [`wide_product`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512fp16")]
pub(super) unsafe fn add_wide_product(
    rows: Rows<'_>,
    panel: *const u16,
    factor: f32,
    out: *mut f32,
    stride: usize,
) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        let sums = wide_sums(rows, panel, factor);
        for (row, sums) in sums.into_iter().enumerate().take(rows.count) {
            kernel::add_row(sums, out.add(row * stride));
        }
    }
}

/// Stores rows of products times a factor after the epilogue, in bf16: row r at `out[r]`.
///
/// # Safety
/// As for [`wide_sums_of`], each of `out` holds [`PANEL`] values, and the bias is in f32.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512fp16")]
pub(super) unsafe fn wide_finished_product(
    rows: Rows<'_>,
    panel: *const u16,
    factor: f32,
    finish: Finish,
    out: &[*mut u16; ROWS],
) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        let sums = wide_sums(rows, panel, factor);
        for (sums, out) in sums.into_iter().zip(out).take(rows.count) {
            kernel::finish_row(sums, finish, *out);
        }
    }
}

/// Values in bf16 times a factor, in f16.
///
/// # Safety
/// The CPU has the instructions ([`available`]), and `out` holds as many.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512fp16")]
pub(super) unsafe fn from_bf16(values: &[u16], factor: f32, out: *mut u16) {
    let (chunks, rest) = values.as_chunks::<CHUNK>();
    for (index, chunk) in chunks.iter().enumerate() {
        // SAFETY: 32 values, and as much room.
        unsafe {
            let scaled = kernel::scaled::<true>(vectors::load(chunk.as_ptr()), factor);
            let narrowed = vectors::narrowed::<true>(scaled);
            _mm512_storeu_si512(out.add(index * CHUNK).cast(), narrowed);
        }
    }
    for (index, value) in rest.iter().enumerate() {
        let value = half::bf16::from_bits(*value).to_f32() * factor;
        // SAFETY: `out` has the second half too.
        unsafe { *out.add(chunks.len() * CHUNK + index) = half::f16::from_f32(value).to_bits() };
    }
}

/// Stores rows of products: row r at `out + r * stride`.
///
/// # Safety
/// As for [`sums_of`], and `out` holds the rows.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512fp16")]
pub(super) unsafe fn product(rows: Rows<'_>, panel: *const u16, out: *mut u16, stride: usize) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        let sums = sums(rows, panel);
        for (row, [low, high]) in sums.into_iter().enumerate().take(rows.count) {
            store(low, out.add(row * stride));
            store(high, out.add(row * stride + CHUNK));
        }
    }
}

/// Stores rows of products after the epilogue: row r at `out[r]`.
///
/// # Safety
/// As for [`sums_of`], each of `out` holds [`PANEL`] values, and the bias is in f16.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512fp16")]
pub(super) unsafe fn finished_product(
    rows: Rows<'_>,
    panel: *const u16,
    finish: Finish,
    out: &[*mut u16; ROWS],
) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        let sums = sums(rows, panel);
        let bias = [load(finish.bias), load(finish.bias.add(CHUNK))];
        for (sums, out) in sums.into_iter().zip(out).take(rows.count) {
            for half in 0..2 {
                let mut value = _mm512_add_ph(sums[half], bias[half]);
                if finish.relu {
                    value = rectified(value);
                }
                store(value, out.add(CHUNK * half));
            }
        }
    }
}

/// Winograd's transform of a tile of 4×4 pixels, as [`super::kernel::transform_input`] but with the
/// channels in order.
///
/// # Safety
/// The CPU has the instructions ([`available`]), each pixel has `channels` values, a multiple of
/// [`CHUNK`], and `out` room for 16 rows.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512fp16")]
pub(super) unsafe fn transform_input(
    pixels: &[*const u16; 16],
    channels: usize,
    out: *mut u16,
    stride: usize,
) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        for channel in (0..channels).step_by(CHUNK) {
            let mut d = [_mm512_setzero_ph(); 16];
            for (value, pixel) in d.iter_mut().zip(pixels) {
                *value = load(pixel.add(channel));
            }
            let mut rows = d;
            for x in 0..4 {
                rows[x] = _mm512_sub_ph(d[x], d[8 + x]);
                rows[4 + x] = _mm512_add_ph(d[4 + x], d[8 + x]);
                rows[8 + x] = _mm512_sub_ph(d[8 + x], d[4 + x]);
                rows[12 + x] = _mm512_sub_ph(d[4 + x], d[12 + x]);
            }
            for y in (0..16).step_by(4) {
                let at = |x: usize| out.add((y + x) * stride + channel);
                store(_mm512_sub_ph(rows[y], rows[y + 2]), at(0));
                store(_mm512_add_ph(rows[y + 1], rows[y + 2]), at(1));
                store(_mm512_sub_ph(rows[y + 2], rows[y + 1]), at(2));
                store(_mm512_sub_ph(rows[y + 1], rows[y + 3]), at(3));
            }
        }
    }
}

/// The inverse transform, as [`super::kernel::transform_output`], from products in f16.
///
/// # Safety
/// The CPU has the instructions ([`available`]), the pointers that are not null hold [`PANEL`]
/// values, and the bias is in f16.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512fp16")]
pub(super) unsafe fn transform_output(
    products: *const u16,
    stride: usize,
    finish: Finish,
    residual: &[*const u16; 4],
    out: &[*mut u16; 4],
) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        for column in (0..PANEL).step_by(CHUNK) {
            let mut m = [_mm512_setzero_ph(); 16];
            for (place, m) in m.iter_mut().enumerate() {
                *m = load(products.add(place * stride + column));
            }
            // The second element of the second row is added to all four pixels, and so is the bias
            // with it.
            m[5] = _mm512_add_ph(m[5], load(finish.bias.add(column)));
            let mut rows = [_mm512_setzero_ph(); 8];
            for x in 0..4 {
                let sum = _mm512_add_ph(m[4 + x], m[8 + x]);
                let difference = _mm512_sub_ph(m[4 + x], m[8 + x]);
                rows[x] = _mm512_add_ph(m[x], sum);
                rows[4 + x] = _mm512_sub_ph(difference, m[12 + x]);
            }
            for y in 0..2 {
                let row = &rows[4 * y..];
                let sum = _mm512_add_ph(row[1], row[2]);
                let difference = _mm512_sub_ph(row[1], row[2]);
                let pixels = [
                    _mm512_add_ph(row[0], sum),
                    _mm512_sub_ph(difference, row[3]),
                ];
                for (x, mut pixel) in pixels.into_iter().enumerate() {
                    let place = 2 * y + x;
                    if out[place].is_null() {
                        continue;
                    }
                    if !residual[place].is_null() {
                        pixel = _mm512_add_ph(pixel, load(residual[place].add(column)));
                    }
                    if finish.relu {
                        pixel = rectified(pixel);
                    }
                    store(pixel, out[place].add(column));
                }
            }
        }
    }
}

/// Rounds values to f16.
///
/// # Panics
/// When the two have not the same length.
///
/// # Safety
/// The CPU has the instructions ([`available`]).
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512fp16")]
pub(super) unsafe fn round(values: &[f32], out: &mut [u16]) {
    assert_eq!(values.len(), out.len());
    let whole = values.len() / 16 * 16;
    for at in (0..whole).step_by(16) {
        // SAFETY: 16 values from there are in both.
        unsafe {
            let rounded = _mm512_cvtps_ph::<NEAREST>(_mm512_loadu_ps(values[at..].as_ptr()));
            _mm256_storeu_si256(out[at..].as_mut_ptr().cast(), rounded);
        }
    }
    for (value, out) in values[whole..].iter().zip(&mut out[whole..]) {
        *out = half::f16::from_f32(*value).to_bits();
    }
}
