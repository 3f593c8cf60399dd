//! Operations on vectors of bf16, f16 and f32 that several kernels share.

#![expect(
    unsafe_code,
    reason = "vector instructions work on pointers and need a CPU that has them, which `kernel::available` checks"
)]

use std::arch::{
    asm,
    x86_64::{
        __m512, __m512bh, __m512i, _CMP_UNORD_Q, _mm512_add_epi32, _mm512_and_si512,
        _mm512_castps_si512, _mm512_castsi256_si512, _mm512_castsi512_ps, _mm512_castsi512_si256,
        _mm512_cmp_ps_mask, _mm512_cvtepi32_epi16, _mm512_cvtepu16_epi32, _mm512_cvtps_ph,
        _mm512_extracti64x4_epi64, _mm512_inserti64x4, _mm512_loadu_si512, _mm512_mask_or_epi32,
        _mm512_permutex2var_epi16, _mm512_permutex2var_ps, _mm512_permutexvar_epi16,
        _mm512_set1_epi32, _mm512_setr_epi32, _mm512_shuffle_i32x4, _mm512_slli_epi32,
        _mm512_srli_epi32, _mm512_storeu_si512, _mm512_unpackhi_epi32, _mm512_unpackhi_epi64,
        _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
    },
};

/// Round to nearest, ties to even.
pub(super) const NEAREST: i32 = 0;

/// Permutation of `[16 even][16 odd]` values into their order.
pub(super) const EVEN_ODD: [u16; 32] = {
    let mut places = [0; 32];
    let mut place = 0;
    while place < 16 {
        places[place] = 2 * place as u16;
        places[place + 16] = 2 * place as u16 + 1;
        place += 1;
    }
    places
};

/// Permutation that interleaves the second 16 values with the first.
const INTERLEAVED: [u16; 32] = {
    let mut places = [0; 32];
    let mut place = 0;
    while place < 16 {
        places[2 * place] = place as u16;
        places[2 * place + 1] = place as u16 + 16;
        place += 1;
    }
    places
};

/// Permutation that interleaves the values of two vectors: the lower half of the result.
const BETWEEN: [u16; 32] = {
    let mut places = [0; 32];
    let mut place = 0;
    while place < 16 {
        places[2 * place] = place as u16;
        places[2 * place + 1] = place as u16 + 32;
        place += 1;
    }
    places
};

/// The upper half of the same result.
const BETWEEN_UPPER: [u16; 32] = {
    let mut places = BETWEEN;
    let mut place = 0;
    while place < 32 {
        places[place] += 16;
        place += 1;
    }
    places
};

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn as_bf16(bits: __m512i) -> __m512bh {
    // SAFETY: both types have 512 bits, and all patterns are valid.
    unsafe { std::mem::transmute(bits) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn indices(places: &[u16; 32]) -> __m512i {
    // SAFETY: 32 values of 16 bits.
    unsafe { _mm512_loadu_si512(places.as_ptr().cast()) }
}

/// 32 bf16 values in f32, in order.
///
/// # Safety
/// `from` holds 32 values.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) unsafe fn load(from: *const u16) -> [__m512; 2] {
    // SAFETY: guaranteed by the caller.
    widened(unsafe { _mm512_loadu_si512(from.cast()) })
}

/// 32 bf16 values in f32, in order.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn widened(packed: __m512i) -> [__m512; 2] {
    let widened = |half| _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
    [
        widened(_mm512_castsi512_si256(packed)),
        widened(_mm512_extracti64x4_epi64(packed, 1)),
    ]
}

/// 32 values in bf16, in their order.
///
/// # Safety
/// `out` holds 32 values.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) unsafe fn store(values: [__m512; 2], out: *mut u16) {
    // SAFETY: guaranteed by the caller.
    unsafe { _mm512_storeu_si512(out.cast(), in_bf16(values)) }
}

/// 32 values in bf16, in order, rounded to nearest, ties to even. NaN persists.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn in_bf16(values: [__m512; 2]) -> __m512i {
    // The part of `kernel::multiplies_in_bf16` that is not known here; this runs for every few
    // values.
    if std::arch::is_x86_feature_detected!("avx512bf16") {
        let [low, high] = values;
        let packed: __m512i;
        // SAFETY: the CPU has AVX512_BF16, and the instruction changes nothing but its result. As a
        // function of its own it could not be inlined into its callers, which are also compiled for
        // CPUs without it.
        unsafe {
            asm!(
                "vcvtne2ps2bf16 {packed}, {high}, {low}",
                packed = lateout(zmm_reg) packed,
                high = in(zmm_reg) high,
                low = in(zmm_reg) low,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        packed
    } else {
        in_bf16_by_hand(values)
    }
}

/// The same for any CPU with AVX-512.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn in_bf16_by_hand(values: [__m512; 2]) -> __m512i {
    let [low, high] = values.map(|half| _mm512_cvtepi32_epi16(upper_half(half)));
    _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
}

/// The bf16 bits of 16 values, rounded as by [`in_bf16`].
#[inline]
#[target_feature(enable = "avx512f")]
fn upper_half(values: __m512) -> __m512i {
    const QUIET: i32 = 1 << 22;
    // The lower half carries into the upper half if it is more than half of the last place, or
    // exactly half and that place is odd.
    const JUST_BELOW_HALF: i32 = 0x7fff;
    let bits = _mm512_castps_si512(values);
    let is_odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    let rounded = _mm512_add_epi32(
        _mm512_add_epi32(bits, is_odd),
        _mm512_set1_epi32(JUST_BELOW_HALF),
    );
    let is_nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(values, values);
    // Without this bit a NaN with bits in the lower half only would become an infinity, and one
    // with all bits set a zero.
    let rounded = _mm512_mask_or_epi32(rounded, is_nan, bits, _mm512_set1_epi32(QUIET));
    _mm512_srli_epi32(rounded, 16)
}

/// 32 values in order, in f16 or in bf16.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) fn narrowed<const IN_F16: bool>(values: [__m512; 2]) -> __m512i {
    if IN_F16 {
        let [low, high] = values.map(|half| _mm512_cvtps_ph::<NEAREST>(half));
        _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
    } else {
        in_bf16(values)
    }
}

/// 16 pairs of a first and a second value, in f16 or in bf16.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) fn pairs<const IN_F16: bool>(first: __m512, second: __m512) -> __m512i {
    let both = narrowed::<IN_F16>([first, second]);
    _mm512_permutexvar_epi16(indices(&INTERLEAVED), both)
}

/// 32 values of 16 bits, even ones before odd ones.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn even_before_odd(values: __m512i) -> __m512i {
    _mm512_permutexvar_epi16(indices(&EVEN_ODD), values)
}

/// 32 values in f16 or in bf16, optionally with the even ones before the odd ones.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) fn rounded<const IN_F16: bool>(values: [__m512; 2], even_first: bool) -> __m512i {
    let packed = narrowed::<IN_F16>(values);
    if even_first {
        even_before_odd(packed)
    } else {
        packed
    }
}

/// Pairs of the values of two vectors of 32 bf16 values, in order.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn between(first: __m512i, second: __m512i) -> [__m512i; 2] {
    [
        _mm512_permutex2var_epi16(first, indices(&BETWEEN), second),
        _mm512_permutex2var_epi16(first, indices(&BETWEEN_UPPER), second),
    ]
}

/// The transpose of 16×16 values of 32 bits.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn transposed(rows: &[__m512i; 16]) -> [__m512i; 16] {
    let mut pairs = *rows;
    for row in (0..16).step_by(2) {
        pairs[row] = _mm512_unpacklo_epi32(rows[row], rows[row + 1]);
        pairs[row + 1] = _mm512_unpackhi_epi32(rows[row], rows[row + 1]);
    }
    let mut fours = pairs;
    for row in (0..16).step_by(4) {
        fours[row] = _mm512_unpacklo_epi64(pairs[row], pairs[row + 2]);
        fours[row + 1] = _mm512_unpackhi_epi64(pairs[row], pairs[row + 2]);
        fours[row + 2] = _mm512_unpacklo_epi64(pairs[row + 1], pairs[row + 3]);
        fours[row + 3] = _mm512_unpackhi_epi64(pairs[row + 1], pairs[row + 3]);
    }
    // Column c of the first four rows is now in quarter c / 4 of vector c % 4, and likewise for the
    // next rows.
    let mut out = fours;
    for column in 0..4 {
        let quarter = |row: usize| fours[4 * row + column];
        let low = _mm512_shuffle_i32x4(quarter(0), quarter(1), 0x88);
        let high = _mm512_shuffle_i32x4(quarter(2), quarter(3), 0x88);
        out[column] = _mm512_shuffle_i32x4(low, high, 0x88);
        out[column + 8] = _mm512_shuffle_i32x4(low, high, 0xdd);
        let low = _mm512_shuffle_i32x4(quarter(0), quarter(1), 0xdd);
        let high = _mm512_shuffle_i32x4(quarter(2), quarter(3), 0xdd);
        out[column + 4] = _mm512_shuffle_i32x4(low, high, 0x88);
        out[column + 12] = _mm512_shuffle_i32x4(low, high, 0xdd);
    }
    out
}

/// 32 values in order, from the even and the odd ones.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn in_order(even: __m512, odd: __m512) -> [__m512; 2] {
    let lower = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    let upper = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    [
        _mm512_permutex2var_ps(even, lower, odd),
        _mm512_permutex2var_ps(even, upper, odd),
    ]
}

/// The even and the odd values of 32 bf16 values, in f32.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn even_and_odd(packed: __m512i) -> [__m512; 2] {
    let upper = _mm512_set1_epi32(0xffff_0000_u32.cast_signed());
    [
        _mm512_castsi512_ps(_mm512_slli_epi32(packed, 16)),
        _mm512_castsi512_ps(_mm512_and_si512(packed, upper)),
    ]
}
