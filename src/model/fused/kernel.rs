//! Vector kernels for bf16: Winograd's transforms, and the epilogue of [`super::dot`].
//!
//! A panel is 64 columns of a matrix with its rows in pairs, `[K/2][64][2]`, so that one
//! instruction multiplies two rows of 16 columns by two values of a row of the other factor and
//! adds to f32 sums. All pointers are to bf16 values as `u16`, unless stated otherwise.

#![expect(
    unsafe_code,
    reason = "vector instructions work on pointers and need a CPU that has them, which `available` checks"
)]

use std::arch::x86_64::{
    __m512, _MM_HINT_T1, _mm_prefetch, _mm512_add_ps, _mm512_and_si512, _mm512_loadu_ps,
    _mm512_loadu_si512, _mm512_max_epu16, _mm512_max_ps, _mm512_mul_ps, _mm512_set1_epi16,
    _mm512_set1_ps, _mm512_setzero_ps, _mm512_setzero_si512, _mm512_storeu_ps, _mm512_storeu_si512,
    _mm512_sub_ps,
};

use super::vectors;

/// Columns of a panel.
pub(super) const PANEL: usize = 64;
/// Rows of a product that are computed at once: with four vectors of the panel and one factor they
/// fill the registers.
pub(super) const ROWS: usize = 6;
/// Channels in a vector of bf16; all numbers of channels are multiples of it.
pub(super) const CHUNK: usize = 32;

/// Returns whether this CPU has the instructions, except for those of the products.
pub(super) fn available() -> bool {
    std::arch::is_x86_feature_detected!("avx512f")
        && std::arch::is_x86_feature_detected!("avx512bw")
        && std::arch::is_x86_feature_detected!("avx512vl")
}

/// Returns whether it also has AVX512_BF16.
pub(super) fn multiplies_in_bf16() -> bool {
    available() && std::arch::is_x86_feature_detected!("avx512bf16")
}

/// A row of sums in four vectors of 16 columns.
pub(super) type Sums = [__m512; 4];

/// The epilogue of a row of sums before it is stored in bf16.
#[derive(Debug, Clone, Copy)]
pub(super) struct Finish {
    /// `[PANEL]` in the format of [`super::format::Arithmetic::sums`], added to each row.
    pub(super) bias: *const u16,
    /// Negative values become zero.
    pub(super) relu: bool,
}

/// Rows of pairs that are multiplied by panels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rows<'a> {
    /// Start of the rows of each tap; only the first `count` are read. The panels of the taps are
    /// consecutive.
    pub(super) taps: &'a [[*const u16; ROWS]],
    /// At most [`ROWS`].
    pub(super) count: usize,
    /// In each row of a tap.
    pub(super) pairs: usize,
    /// Values from one pair of a row to the next; 2 if they are adjacent.
    pub(super) step: usize,
    /// The current turn, if another panel follows.
    pub(super) turn: Option<Turn>,
}

/// The position of rows among those that are multiplied by the same panel in sequence.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turn {
    /// From 0.
    pub(super) number: usize,
    pub(super) count: usize,
}

/// Values of 16 bits in a cache line.
pub(super) const LINE: usize = 32;
/// Rows of a panel in f32, or pairs of rows in bf16, that are prefetched into the first-level cache
/// at a time; most panels are larger than that cache.
pub(super) const SOON: usize = 6;

/// A panel, and the data that is prefetched while rows are multiplied by it.
#[derive(Clone, Copy)]
pub(super) struct Panel {
    pub(super) start: *const u16,
    pub(super) ahead: Ahead,
}

impl Panel {
    /// `of_pair` is the length of a pair of rows; `next_fits` states that the second-level cache
    /// has room for another panel.
    #[inline]
    pub(super) fn new(start: *const u16, rows: Rows<'_>, of_pair: usize, next_fits: bool) -> Self {
        let length = rows.taps.len() * rows.pairs * of_pair;
        let ahead = match rows.turn {
            Some(Turn { number, count }) if next_fits && count > 1 => Ahead {
                next: start.wrapping_add(length + number * (length / LINE / count) * LINE),
                lines: (of_pair / LINE).div_ceil(count),
            },
            Some(_) | None => Ahead {
                next: start,
                lines: 0,
            },
        };
        Panel { start, ahead }
    }
}

/// A part of the next panel, which is prefetched into the second-level cache. Filters of the last
/// layers come from the last-level cache or from memory. The hardware prefetcher sees repeated rows
/// and fetches too little of a panel before its first rows need it; streams that are read once it
/// handles well.
#[derive(Clone, Copy)]
pub(super) struct Ahead {
    next: *const u16,
    /// Lines for each pair of the panel's rows.
    lines: usize,
}

impl Ahead {
    /// Returns whether it has any lines.
    #[inline]
    pub(super) fn is_any(self) -> bool {
        self.lines > 0
    }

    /// Prefetches the lines of a pair.
    #[inline]
    pub(super) fn fetch(&mut self) {
        for line in 0..self.lines {
            // SAFETY: prefetching is a hint and accepts any address.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(self.next.wrapping_add(line * LINE).cast()) };
        }
        self.next = self.next.wrapping_add(self.lines * LINE);
    }
}

/// Calls the instance of a generic function for the number of rows and one of two kinds.
macro_rules! for_rows {
    ($sums:ident, $rows:ident, $panel:ident $(; $kind:expr)? $(, $store:expr)?) => {
        match $rows.count {
            1 => $sums::<1 $(, $kind)?>($rows, $panel $(, $store)?),
            2 => $sums::<2 $(, $kind)?>($rows, $panel $(, $store)?),
            3 => $sums::<3 $(, $kind)?>($rows, $panel $(, $store)?),
            4 => $sums::<4 $(, $kind)?>($rows, $panel $(, $store)?),
            5 => $sums::<5 $(, $kind)?>($rows, $panel $(, $store)?),
            _ => $sums::<ROWS $(, $kind)?>($rows, $panel $(, $store)?),
        }
    };
}
pub(super) use for_rows;

/// Stores a row of sums.
///
/// # Safety
/// The CPU has the instructions ([`available`]), and `out` holds the row.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn store_row(sums: Sums, out: *mut f32) {
    for (column, sum) in sums.into_iter().enumerate() {
        // SAFETY: guaranteed by the caller.
        unsafe { _mm512_storeu_ps(out.add(16 * column), sum) };
    }
}

/// Adds a row of sums to another.
///
/// # Safety
/// As for [`store_row`].
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn add_row(sums: Sums, out: *mut f32) {
    for (column, sum) in sums.into_iter().enumerate() {
        // SAFETY: guaranteed by the caller.
        unsafe {
            let place = out.add(16 * column);
            _mm512_storeu_ps(place, _mm512_add_ps(_mm512_loadu_ps(place), sum));
        }
    }
}

/// Adds the bias to a row of sums, applies ReLU if requested, and stores it in bf16.
///
/// # Safety
/// The CPU has the instructions ([`available`]), `out` holds [`PANEL`] values, and the bias is in
/// f32.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) unsafe fn finish_row(sums: Sums, finish: Finish, out: *mut u16) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        let bias = finish.bias.cast::<f32>();
        for half in 0..2 {
            let add_bias =
                |column: usize| _mm512_add_ps(sums[column], _mm512_loadu_ps(bias.add(16 * column)));
            let (low, high) = (add_bias(2 * half), add_bias(2 * half + 1));
            store(low, high, finish.relu, out.add(CHUNK * half));
        }
    }
}

/// Winograd's transform Bᵀ d B (Lavin and Gray, 2015, arXiv:1509.09308, equation 8) of each channel
/// of a tile of 4×4 pixels, with pixel (y, x) at `pixels[4 * y + x]`. Element i goes to `out + i *
/// stride`. Within each [`CHUNK`] the even channels precede the odd ones, as in
/// [`super::winograd`]'s panels. In f16 all are multiplied by the scale first.
///
/// # Safety
/// The CPU has the instructions ([`available`]), each pixel has `channels` values, a multiple of
/// [`CHUNK`], and `out` room for 16 rows.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) unsafe fn transform_input<const IN_F16: bool>(
    pixels: &[*const u16; 16],
    channels: usize,
    scale: f32,
    out: *mut u16,
    stride: usize,
) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        for channel in (0..channels).step_by(CHUNK) {
            let (mut even, mut odd) = ([_mm512_setzero_ps(); 16], [_mm512_setzero_ps(); 16]);
            for (place, pixel) in pixels.iter().enumerate() {
                let packed = _mm512_loadu_si512(pixel.add(channel).cast());
                [even[place], odd[place]] = vectors::even_and_odd(packed);
            }
            let (even, odd) = (transformed(&even), transformed(&odd));
            for (place, (even, odd)) in even.into_iter().zip(odd).enumerate() {
                let both = scaled::<IN_F16>([even, odd], scale);
                _mm512_storeu_si512(
                    out.add(place * stride + channel).cast(),
                    vectors::narrowed::<IN_F16>(both),
                );
            }
        }
    }
}

/// Values times a scale; in bf16 the scale is 1.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn scaled<const IN_F16: bool>(values: [__m512; 2], scale: f32) -> [__m512; 2] {
    if !IN_F16 {
        return values;
    }
    let scale = _mm512_set1_ps(scale);
    [
        _mm512_mul_ps(values[0], scale),
        _mm512_mul_ps(values[1], scale),
    ]
}

/// The bits of the largest magnitude of bf16 values.
///
/// # Safety
/// The CPU has the instructions ([`available`]).
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) unsafe fn magnitude(values: &[u16]) -> u16 {
    const MAGNITUDE: u16 = 0x7fff;
    let (chunks, rest) = values.as_chunks::<CHUNK>();
    let mask = _mm512_set1_epi16(MAGNITUDE.cast_signed());
    let mut most = _mm512_setzero_si512();
    for chunk in chunks {
        // SAFETY: 32 values.
        let bits = unsafe { _mm512_loadu_si512(chunk.as_ptr().cast()) };
        most = _mm512_max_epu16(most, _mm512_and_si512(bits, mask));
    }
    let mut found = [0; CHUNK];
    // SAFETY: room for 32 values.
    unsafe { _mm512_storeu_si512(found.as_mut_ptr().cast(), most) };
    let rest = rest.iter().map(|bits| bits & MAGNITUDE);
    found.into_iter().chain(rest).max().unwrap_or(0)
}

/// Bᵀ d B for 16 channels.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn transformed(d: &[__m512; 16]) -> [__m512; 16] {
    let mut rows = [_mm512_setzero_ps(); 16];
    for x in 0..4 {
        rows[x] = _mm512_sub_ps(d[x], d[8 + x]);
        rows[4 + x] = _mm512_add_ps(d[4 + x], d[8 + x]);
        rows[8 + x] = _mm512_sub_ps(d[8 + x], d[4 + x]);
        rows[12 + x] = _mm512_sub_ps(d[4 + x], d[12 + x]);
    }
    let mut both = [_mm512_setzero_ps(); 16];
    for y in (0..16).step_by(4) {
        both[y] = _mm512_sub_ps(rows[y], rows[y + 2]);
        both[y + 1] = _mm512_add_ps(rows[y + 1], rows[y + 2]);
        both[y + 2] = _mm512_sub_ps(rows[y + 2], rows[y + 1]);
        both[y + 3] = _mm512_sub_ps(rows[y + 1], rows[y + 3]);
    }
    both
}

/// The inverse transform of a tile and a panel: Aᵀ m A of the same paper, with element i of m at
/// `products + i * stride`, yields 2×2 pixels. Adds the bias and the residual, if any, and stores
/// the pixels whose target is not null.
///
/// # Safety
/// The CPU has the instructions ([`available`]), the pointers that are not null hold [`PANEL`]
/// values, and the bias is in f32.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) unsafe fn transform_output(
    products: *const f32,
    stride: usize,
    finish: Finish,
    residual: &[*const u16; 4],
    out: &[*mut u16; 4],
) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        let bias = finish.bias.cast::<f32>();
        for column in (0..PANEL).step_by(CHUNK) {
            let low = pixels(products.add(column), stride, bias.add(column));
            let high = pixels(products.add(column + 16), stride, bias.add(column + 16));
            for pixel in 0..4 {
                if out[pixel].is_null() {
                    continue;
                }
                let (mut low, mut high) = (low[pixel], high[pixel]);
                if !residual[pixel].is_null() {
                    let added = vectors::load(residual[pixel].add(column));
                    low = _mm512_add_ps(low, added[0]);
                    high = _mm512_add_ps(high, added[1]);
                }
                store(low, high, finish.relu, out[pixel].add(column));
            }
        }
    }
}

/// Aᵀ m A plus the bias for 16 columns.
///
/// # Safety
/// As for [`transform_output`].
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn pixels(products: *const f32, stride: usize, bias: *const f32) -> [__m512; 4] {
    // SAFETY: guaranteed by the caller.
    unsafe {
        let mut m = [_mm512_setzero_ps(); 16];
        for (place, m) in m.iter_mut().enumerate() {
            *m = _mm512_loadu_ps(products.add(place * stride));
        }
        let mut rows = [_mm512_setzero_ps(); 8];
        for x in 0..4 {
            let sum = _mm512_add_ps(m[4 + x], m[8 + x]);
            let difference = _mm512_sub_ps(m[4 + x], m[8 + x]);
            rows[x] = _mm512_add_ps(m[x], sum);
            rows[4 + x] = _mm512_sub_ps(difference, m[12 + x]);
        }
        let bias = _mm512_loadu_ps(bias);
        let mut pixels = [_mm512_setzero_ps(); 4];
        for y in 0..2 {
            let row = &rows[4 * y..];
            let sum = _mm512_add_ps(row[1], row[2]);
            let difference = _mm512_sub_ps(row[1], row[2]);
            pixels[2 * y] = _mm512_add_ps(_mm512_add_ps(row[0], sum), bias);
            pixels[2 * y + 1] = _mm512_add_ps(_mm512_sub_ps(difference, row[3]), bias);
        }
        pixels
    }
}

/// The maximum of each channel over pixels without negative values, for which the bits of bf16 have
/// the order of the values.
///
/// # Safety
/// The CPU has the instructions ([`available`]), and all pointers hold `channels` values, a
/// multiple of [`CHUNK`].
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) unsafe fn largest(pixels: &[*const u16], channels: usize, out: *mut u16) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        for channel in (0..channels).step_by(CHUNK) {
            let mut most = _mm512_setzero_si512();
            for pixel in pixels {
                most = _mm512_max_epu16(most, _mm512_loadu_si512(pixel.add(channel).cast()));
            }
            _mm512_storeu_si512(out.add(channel).cast(), most);
        }
    }
}

/// Stores 32 values in bf16.
///
/// # Safety
/// The CPU has the instructions ([`available`]), and `out` holds them.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn store(mut low: __m512, mut high: __m512, relu: bool, out: *mut u16) {
    if relu {
        let zero = _mm512_setzero_ps();
        // In this operand order NaN persists, and so does a negative zero until zero is added:
        // `largest` would take its bits for a large value.
        low = _mm512_add_ps(_mm512_max_ps(zero, low), zero);
        high = _mm512_add_ps(_mm512_max_ps(zero, high), zero);
    }
    // SAFETY: guaranteed by the caller.
    unsafe { vectors::store([low, high], out) }
}
