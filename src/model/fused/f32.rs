//! Vector kernels for f32 on CPUs that do not multiply in 16 bits: the functions of
//! [`super::kernel`], with AVX-512 or with AVX2 and FMA.
//!
//! Pointers count units of 16 bits, so a value takes two. A panel is 64 columns of a matrix, row by
//! row: `[K][64]`. It may be in f16 instead, which f32 represents exactly.

#![expect(
    unsafe_code,
    reason = "vector instructions work on pointers and need a CPU that has them, which `widest` checks"
)]

use super::kernel::{Finish, LINE, PANEL, Panel, ROWS, Rows, SOON, for_rows};

/// Units of 16 bits in a value of a panel.
const fn places(in_f16: bool) -> usize {
    if in_f16 { 1 } else { 2 }
}

/// Values in a vector register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lanes {
    /// Eight, with AVX2, FMA and F16C.
    Eight,
    /// 16, with AVX-512.
    Sixteen,
}

impl Lanes {
    /// Returns whether this CPU has the instructions.
    pub(super) fn are_available(self) -> bool {
        match self {
            Lanes::Eight => {
                std::arch::is_x86_feature_detected!("avx2")
                    && std::arch::is_x86_feature_detected!("fma")
                    && std::arch::is_x86_feature_detected!("f16c")
            }
            Lanes::Sixteen => std::arch::is_x86_feature_detected!("avx512f"),
        }
    }

    /// The widest registers of this CPU.
    pub(super) fn most() -> Option<Self> {
        let all = [Lanes::Sixteen, Lanes::Eight];
        all.into_iter().find(|lanes| lanes.are_available())
    }

    /// Stores rows of products in f32: row r at `out + r * stride`.
    ///
    /// # Safety
    /// The CPU has registers of this width, the rows hold their pairs, `panel` has `taps * pairs *
    /// 2 * PANEL` numbers in f32, or in f16 if so said, and `out` holds the rows.
    #[inline]
    pub(super) unsafe fn product<const IN_F16: bool>(
        self,
        rows: Rows<'_>,
        panel: *const u16,
        out: *mut f32,
        stride: usize,
    ) {
        // SAFETY: guaranteed by the caller.
        unsafe {
            match self {
                Lanes::Eight => eight::product::<IN_F16>(rows, panel, out, stride),
                Lanes::Sixteen => sixteen::product::<IN_F16>(rows, panel, out, stride),
            }
        }
    }

    /// Stores rows of products with a panel in f32 after the epilogue: row r at `out[r]`.
    ///
    /// # Safety
    /// As for [`Lanes::product`], and each of `out` holds [`PANEL`] numbers.
    #[inline]
    pub(super) unsafe fn finished_product(
        self,
        rows: Rows<'_>,
        panel: *const u16,
        finish: Finish,
        out: &[*mut u16; ROWS],
    ) {
        // SAFETY: guaranteed by the caller.
        unsafe {
            match self {
                Lanes::Eight => eight::finished_product(rows, panel, finish, out),
                Lanes::Sixteen => sixteen::finished_product(rows, panel, finish, out),
            }
        }
    }

    /// Winograd's transform of a tile of 4×4 pixels, as [`super::kernel::transform_input`] but with
    /// the channels in order.
    ///
    /// # Safety
    /// The CPU has registers of this width, each pixel has `channels` numbers, a multiple of 16,
    /// and `out` room for 16 rows.
    #[inline]
    pub(super) unsafe fn transform_input(
        self,
        pixels: &[*const u16; 16],
        channels: usize,
        out: *mut f32,
        stride: usize,
    ) {
        // SAFETY: guaranteed by the caller.
        unsafe {
            match self {
                Lanes::Eight => eight::transform_input(pixels, channels, out, stride),
                Lanes::Sixteen => sixteen::transform_input(pixels, channels, out, stride),
            }
        }
    }

    /// The inverse transform, as [`super::kernel::transform_output`].
    ///
    /// # Safety
    /// The CPU has registers of this width, and the pointers that are not null hold [`PANEL`]
    /// numbers.
    #[inline]
    pub(super) unsafe fn transform_output(
        self,
        products: *const f32,
        stride: usize,
        finish: Finish,
        residual: &[*const u16; 4],
        out: &[*mut u16; 4],
    ) {
        // SAFETY: guaranteed by the caller.
        unsafe {
            match self {
                Lanes::Eight => eight::transform_output(products, stride, finish, residual, out),
                Lanes::Sixteen => {
                    sixteen::transform_output(products, stride, finish, residual, out);
                }
            }
        }
    }

    /// The maximum of each channel over pixels.
    ///
    /// # Safety
    /// The CPU has registers of this width, and all pointers hold `channels` numbers, a multiple of
    /// 16.
    #[inline]
    pub(super) unsafe fn largest(self, pixels: &[*const u16], channels: usize, out: *mut u16) {
        // SAFETY: guaranteed by the caller.
        unsafe {
            match self {
                Lanes::Eight => eight::largest(pixels, channels, out),
                Lanes::Sixteen => sixteen::largest(pixels, channels, out),
            }
        }
    }
}

/// The same kernels for vectors of each length. `at_once` is the number of vectors of a row that a
/// product has in registers, beside as many of the panel and one factor. The last value states
/// whether two panels fit into the second-level cache: CPUs with AVX-512 have at least 512 KiB,
/// others half as much.
macro_rules! kernels {
    (
        $name:ident, $feature:literal, $vector:ident, $lanes:literal lanes, $at_once:literal at_once,
        $zero:ident, $load:ident, $store:ident, $set:ident, $fmadd:ident, $add:ident, $sub:ident, $max:ident,
        $load_halves:ident, $widen:ident, $next_fits:literal
    ) => {
        mod $name {
            use std::arch::x86_64::{
                _MM_HINT_T0, _mm_prefetch, $add, $fmadd, $load, $load_halves, $max, $set, $store,
                $sub, $vector, $widen, $zero,
            };

            use super::{Finish, LINE, PANEL, Panel, ROWS, Rows, SOON, for_rows, places};

            /// Columns of a panel that are computed at once.
            const COLUMNS: usize = $lanes * $at_once;

            /// The sums over taps of rows times the first columns of panels, for `R` rows. `store`
            /// gets the row, the index of the vector in it, and the sums one vector at a time, so
            /// that they stay in registers until then.
            ///
            /// # Safety
            /// The instructions are available, and the rows and the panels hold what is read of
            /// them.
            #[inline]
            #[target_feature(enable = $feature)]
            unsafe fn sums_of<const R: usize, const IN_F16: bool>(
                rows: Rows<'_>,
                panel: Panel,
                mut store: impl FnMut(usize, usize, $vector),
            ) {
                // SAFETY: guaranteed by the caller.
                unsafe {
                    let Panel {
                        start: mut panel,
                        mut ahead,
                    } = panel;
                    let mut sums = [[$zero(); $at_once]; R];
                    for tap in rows.taps {
                        for place in 0..2 * rows.pairs {
                            if place % 2 == 0 {
                                ahead.fetch();
                            }
                            let soon = panel.wrapping_add(SOON * PANEL * places(IN_F16));
                            for line in (0..COLUMNS * places(IN_F16)).step_by(LINE) {
                                _mm_prefetch::<_MM_HINT_T0>(soon.wrapping_add(line).cast());
                            }
                            let mut columns = [$zero(); $at_once];
                            for (column, values) in columns.iter_mut().enumerate() {
                                let place = panel.add($lanes * column * places(IN_F16));
                                *values = if IN_F16 {
                                    $widen($load_halves(place.cast()))
                                } else {
                                    $load(place.cast())
                                };
                            }
                            for row in 0..R {
                                let factor = $set(*tap[row].cast::<f32>().add(place));
                                for column in 0..$at_once {
                                    sums[row][column] =
                                        $fmadd(factor, columns[column], sums[row][column]);
                                }
                            }
                            panel = panel.add(PANEL * places(IN_F16));
                        }
                    }
                    for (row, sums) in sums.into_iter().enumerate() {
                        for (column, sum) in sums.into_iter().enumerate() {
                            store(row, column, sum);
                        }
                    }
                }
            }

            /// # Safety
            /// As for [`super::Lanes::product`].
            #[target_feature(enable = $feature)]
            pub(super) unsafe fn product<const IN_F16: bool>(
                rows: Rows<'_>,
                panel: *const u16,
                out: *mut f32,
                stride: usize,
            ) {
                // SAFETY: guaranteed by the caller.
                unsafe {
                    for begin in (0..PANEL).step_by(COLUMNS) {
                        let panel = panel.add(begin * places(IN_F16));
                        let panel = Panel::new(panel, rows, 2 * PANEL * places(IN_F16), $next_fits);
                        for_rows!(sums_of, rows, panel; IN_F16, |row, column, sum| {
                            $store(out.add(row * stride + begin + $lanes * column), sum);
                        });
                    }
                }
            }

            /// # Safety
            /// As for [`super::Lanes::finished_product`].
            #[target_feature(enable = $feature)]
            pub(super) unsafe fn finished_product(
                rows: Rows<'_>,
                panel: *const u16,
                finish: Finish,
                out: &[*mut u16; ROWS],
            ) {
                // SAFETY: guaranteed by the caller.
                unsafe {
                    let bias = finish.bias.cast::<f32>();
                    for begin in (0..PANEL).step_by(COLUMNS) {
                        let panel = panel.add(begin * places(false));
                        let panel = Panel::new(panel, rows, 2 * PANEL * places(false), $next_fits);
                        for_rows!(sums_of, rows, panel; false, |row, column, sum| {
                            let at = begin + $lanes * column;
                            let value = $add(sum, $load(bias.add(at)));
                            let place = out[row].cast::<f32>().add(at);
                            $store(place, rectified(value, finish.relu));
                        });
                    }
                }
            }

            /// ReLU if requested; NaN persists.
            #[inline]
            #[target_feature(enable = $feature)]
            fn rectified(value: $vector, relu: bool) -> $vector {
                if relu { $max($zero(), value) } else { value }
            }

            /// # Safety
            /// As for [`super::Lanes::transform_input`].
            #[target_feature(enable = $feature)]
            pub(super) unsafe fn transform_input(
                pixels: &[*const u16; 16],
                channels: usize,
                out: *mut f32,
                stride: usize,
            ) {
                // SAFETY: guaranteed by the caller.
                unsafe {
                    for channel in (0..channels).step_by($lanes) {
                        let mut rows = [$zero(); 16];
                        for x in 0..4 {
                            let d = |y: usize| $load(pixels[4 * y + x].cast::<f32>().add(channel));
                            let (d0, d1, d2, d3) = (d(0), d(1), d(2), d(3));
                            rows[x] = $sub(d0, d2);
                            rows[4 + x] = $add(d1, d2);
                            rows[8 + x] = $sub(d2, d1);
                            rows[12 + x] = $sub(d1, d3);
                        }
                        for y in (0..16).step_by(4) {
                            let at = |x: usize| out.add((y + x) * stride + channel);
                            $store(at(0), $sub(rows[y], rows[y + 2]));
                            $store(at(1), $add(rows[y + 1], rows[y + 2]));
                            $store(at(2), $sub(rows[y + 2], rows[y + 1]));
                            $store(at(3), $sub(rows[y + 1], rows[y + 3]));
                        }
                    }
                }
            }

            /// # Safety
            /// As for [`super::Lanes::transform_output`].
            #[target_feature(enable = $feature)]
            pub(super) unsafe fn transform_output(
                products: *const f32,
                stride: usize,
                finish: Finish,
                residual: &[*const u16; 4],
                out: &[*mut u16; 4],
            ) {
                // SAFETY: guaranteed by the caller.
                unsafe {
                    for column in (0..PANEL).step_by($lanes) {
                        let mut rows = [$zero(); 8];
                        for x in 0..4 {
                            let m = |y: usize| $load(products.add((4 * y + x) * stride + column));
                            let (m1, m2) = (m(1), m(2));
                            rows[x] = $add(m(0), $add(m1, m2));
                            rows[4 + x] = $sub($sub(m1, m2), m(3));
                        }
                        let bias = $load(finish.bias.cast::<f32>().add(column));
                        for y in 0..2 {
                            let row = &rows[4 * y..];
                            let both = [
                                $add(row[0], $add(row[1], row[2])),
                                $sub($sub(row[1], row[2]), row[3]),
                            ];
                            for (x, value) in both.into_iter().enumerate() {
                                let pixel = 2 * y + x;
                                if out[pixel].is_null() {
                                    continue;
                                }
                                let mut value = $add(value, bias);
                                if !residual[pixel].is_null() {
                                    let added = residual[pixel].cast::<f32>().add(column);
                                    value = $add(value, $load(added));
                                }
                                let place = out[pixel].cast::<f32>().add(column);
                                $store(place, rectified(value, finish.relu));
                            }
                        }
                    }
                }
            }

            /// # Safety
            /// As for [`super::Lanes::largest`].
            #[target_feature(enable = $feature)]
            pub(super) unsafe fn largest(pixels: &[*const u16], channels: usize, out: *mut u16) {
                // SAFETY: guaranteed by the caller.
                unsafe {
                    for channel in (0..channels).step_by($lanes) {
                        let mut most = $load(pixels[0].cast::<f32>().add(channel));
                        for pixel in &pixels[1..] {
                            most = $max(most, $load(pixel.cast::<f32>().add(channel)));
                        }
                        $store(out.cast::<f32>().add(channel), most);
                    }
                }
            }
        }
    };
}

kernels!(
    sixteen, "avx512f", __m512, 16 lanes, 4 at_once,
    _mm512_setzero_ps, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_set1_ps,
    _mm512_fmadd_ps, _mm512_add_ps, _mm512_sub_ps, _mm512_max_ps,
    _mm256_loadu_si256, _mm512_cvtph_ps, true
);
kernels!(
    eight, "avx2,fma,f16c", __m256, 8 lanes, 2 at_once,
    _mm256_setzero_ps, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_set1_ps,
    _mm256_fmadd_ps, _mm256_add_ps, _mm256_sub_ps, _mm256_max_ps,
    _mm_loadu_si128, _mm256_cvtph_ps, false
);
