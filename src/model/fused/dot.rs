//! Products of rows and panels in bf16 with sums in f32, with AVX512_BF16 or emulated with AVX-512.
//!
//! The emulation widens the values to f32 in registers, which takes a third of its time and keeps
//! products exact. It is for training only: for predictions f32 is faster ([`mod@super::f32`]).

#![expect(
    unsafe_code,
    reason = "vector instructions work on pointers and need a CPU that has them, which `kernel` checks"
)]

/// Defines the functions over sums of products, given a `sums_of` for each number of rows. `store`
/// gets the row and its sums, which stay in registers until then.
macro_rules! products {
    ($features:literal) => {
        /// Adds rows of products to rows of f32: row r at `out + r * stride`.
        ///
        /// # Safety
        /// As for [`product`].
        #[target_feature(enable = $features)]
        pub(in super::super) unsafe fn add_product(
            rows: Rows<'_>,
            panel: *const u16,
            out: *mut f32,
            stride: usize,
        ) {
            // SAFETY: guaranteed by the caller.
            unsafe {
                for_rows!(sums_of, rows, panel, |row, sums| {
                    kernel::add_row(sums, out.add(row * stride));
                });
            }
        }

        /// Stores rows of products in f32: row r at `out + r * stride`.
        ///
        /// # Safety
        /// As for [`sums_of`], and `out` holds the rows.
        #[target_feature(enable = $features)]
        pub(in super::super) unsafe fn product(
            rows: Rows<'_>,
            panel: *const u16,
            out: *mut f32,
            stride: usize,
        ) {
            // SAFETY: guaranteed by the caller.
            unsafe {
                for_rows!(sums_of, rows, panel, |row, sums| {
                    kernel::store_row(sums, out.add(row * stride));
                });
            }
        }

        /// Stores rows of products after the epilogue, in bf16: row r at `out[r]`.
        ///
        /// # Safety
        /// As for [`sums_of`], each of `out` holds [`kernel::PANEL`] values, and the bias is in
        /// f32.
        #[target_feature(enable = $features)]
        pub(in super::super) unsafe fn finished_product(
            rows: Rows<'_>,
            panel: *const u16,
            finish: Finish,
            out: &[*mut u16; ROWS],
        ) {
            // SAFETY: guaranteed by the caller.
            unsafe {
                for_rows!(sums_of, rows, panel, |row, sums| {
                    kernel::finish_row(sums, finish, out[row]);
                });
            }
        }
    };
}

/// With AVX512_BF16.
pub(super) mod native {
    use std::arch::x86_64::{
        _MM_HINT_T0, _mm_prefetch, _mm512_dpbf16_ps, _mm512_loadu_si512, _mm512_set1_epi32,
        _mm512_setzero_ps,
    };

    use super::super::{
        kernel::{self, CHUNK, Finish, LINE, PANEL, Panel, ROWS, Rows, SOON, Sums, for_rows},
        vectors::as_bf16,
    };

    /// The sums over taps of rows times panels, for `R` rows.
    ///
    /// # Safety
    /// The CPU has the instructions ([`kernel::multiplies_in_bf16`]), the rows hold their pairs and
    /// `panel` has `taps * pairs * 2 * PANEL` values.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    unsafe fn sums_of<const R: usize>(
        rows: Rows<'_>,
        panel: *const u16,
        mut store: impl FnMut(usize, Sums),
    ) {
        let Panel {
            start: mut panel,
            mut ahead,
        } = Panel::new(panel, rows, 2 * PANEL, true);
        // SAFETY: guaranteed by the caller.
        unsafe {
            let mut sums = [[_mm512_setzero_ps(); 4]; R];
            for tap in rows.taps {
                for pair in 0..rows.pairs {
                    if ahead.is_any() {
                        let soon = panel.wrapping_add(SOON * 2 * PANEL);
                        for line in (0..2 * PANEL).step_by(LINE) {
                            _mm_prefetch::<_MM_HINT_T0>(soon.wrapping_add(line).cast());
                        }
                        ahead.fetch();
                    }
                    let columns = [
                        as_bf16(_mm512_loadu_si512(panel.cast())),
                        as_bf16(_mm512_loadu_si512(panel.add(CHUNK).cast())),
                        as_bf16(_mm512_loadu_si512(panel.add(2 * CHUNK).cast())),
                        as_bf16(_mm512_loadu_si512(panel.add(3 * CHUNK).cast())),
                    ];
                    for row in 0..R {
                        let two = tap[row].add(rows.step * pair).cast::<i32>();
                        let factor = as_bf16(_mm512_set1_epi32(two.read_unaligned()));
                        for column in 0..4 {
                            sums[row][column] =
                                _mm512_dpbf16_ps(sums[row][column], factor, columns[column]);
                        }
                    }
                    panel = panel.add(2 * PANEL);
                }
            }
            for (row, sums) in sums.into_iter().enumerate() {
                store(row, sums);
            }
        }
    }

    products!("avx512f,avx512bw,avx512vl,avx512bf16");
}

/// With AVX-512 only.
pub(super) mod emulated {
    use std::arch::x86_64::{
        __m512, __m512i, _mm512_and_si512, _mm512_castsi512_ps, _mm512_fmadd_ps,
        _mm512_loadu_si512, _mm512_set1_epi32, _mm512_setzero_ps, _mm512_slli_epi32,
    };

    use super::super::kernel::{self, CHUNK, Finish, PANEL, ROWS, Rows, Sums, for_rows};

    /// The sums over taps of rows times panels, for `R` rows.
    ///
    /// # Safety
    /// The CPU has the instructions ([`kernel::available`]), the rows hold their pairs and `panel`
    /// has `taps * pairs * 2 * PANEL` values.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn sums_of<const R: usize>(
        rows: Rows<'_>,
        mut panel: *const u16,
        mut store: impl FnMut(usize, Sums),
    ) {
        // SAFETY: guaranteed by the caller.
        unsafe {
            let mut sums = [[_mm512_setzero_ps(); 4]; R];
            for tap in rows.taps {
                for pair in 0..rows.pairs {
                    // One half at a time, because there are too few registers for both.
                    add_half::<R, true>(&mut sums, tap, rows.step * pair, panel);
                    add_half::<R, false>(&mut sums, tap, rows.step * pair, panel);
                    panel = panel.add(2 * PANEL);
                }
            }
            for (row, sums) in sums.into_iter().enumerate() {
                store(row, sums);
            }
        }
    }

    /// Adds the products of the first or the second value of each pair.
    ///
    /// # Safety
    /// As for [`sums_of`], for the pairs `at` values after the rows' starts.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn add_half<const R: usize, const IS_FIRST: bool>(
        sums: &mut [Sums; R],
        tap: &[*const u16; ROWS],
        at: usize,
        panel: *const u16,
    ) {
        // SAFETY: guaranteed by the caller.
        unsafe {
            let mut columns = [_mm512_setzero_ps(); 4];
            for (column, values) in columns.iter_mut().enumerate() {
                *values = half::<IS_FIRST>(_mm512_loadu_si512(panel.add(CHUNK * column).cast()));
            }
            for row in 0..R {
                let two = tap[row].add(at).cast::<i32>();
                let factor = half::<IS_FIRST>(_mm512_set1_epi32(two.read_unaligned()));
                for column in 0..4 {
                    sums[row][column] = _mm512_fmadd_ps(factor, columns[column], sums[row][column]);
                }
            }
        }
    }

    /// The first or the second value of each pair in f32, whose upper half is bf16.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn half<const IS_FIRST: bool>(pairs: __m512i) -> __m512 {
        const SECOND: i32 = 0xffff_0000_u32.cast_signed();
        _mm512_castsi512_ps(if IS_FIRST {
            _mm512_slli_epi32(pairs, 16)
        } else {
            _mm512_and_si512(pairs, _mm512_set1_epi32(SECOND))
        })
    }

    products!("avx512f,avx512bw,avx512vl");
}
