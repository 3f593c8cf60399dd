//! The arithmetic of the kernels in each precision, and the instructions that compute it.

#![expect(
    unsafe_code,
    reason = "it passes pointers to the vector kernels, whose contracts its callers uphold"
)]

use half::{
    bf16, f16,
    slice::{HalfBitsSliceExt, HalfFloatSliceExt},
};

use super::{
    super::precision::Precision,
    dot::{emulated, native},
    f16 as f16_kernel,
    f32::Lanes,
    kernel::{self, Finish, PANEL, ROWS, Rows},
    memory::Aligned,
};

impl Precision {
    /// Returns whether this CPU has the instructions of the fused kernels in this precision.
    pub(crate) fn has_fused_kernels(self) -> bool {
        self.arithmetic().is_some()
    }

    /// Units of 16 bits of a value.
    pub(crate) fn width(self) -> usize {
        match self {
            Precision::Bf16 | Precision::F16 => 1,
            Precision::F32 | Precision::F16Weights => 2,
        }
    }

    /// # Panics
    /// If the lengths differ.
    pub(crate) fn widen_all(self, values: &[u16], out: &mut [f32]) {
        match self {
            Precision::Bf16 => values.reinterpret_cast::<bf16>().convert_to_f32_slice(out),
            Precision::F16 => values.reinterpret_cast::<f16>().convert_to_f32_slice(out),
            Precision::F32 | Precision::F16Weights => {
                let (values, _) = values.as_chunks::<2>();
                assert_eq!(values.len(), out.len());
                for (value, out) in values.iter().zip(out) {
                    *out = from_halves(*value);
                }
            }
        }
    }

    /// The arithmetic of this precision on this CPU; `None` if it lacks the instructions.
    pub(super) fn arithmetic(self) -> Option<Arithmetic> {
        match self {
            Precision::Bf16 => kernel::multiplies_in_bf16().then_some(Arithmetic::Bf16),
            Precision::F16 => f16_kernel::available().then_some(Arithmetic::F16),
            Precision::F32 => Lanes::most().map(|lanes| Arithmetic::F32(lanes, Filters::Exact)),
            Precision::F16Weights => {
                Lanes::most().map(|lanes| Arithmetic::F32(lanes, Filters::InF16))
            }
        }
    }
}

fn to_halves(value: f32) -> [u16; 2] {
    let [a, b, c, d] = value.to_ne_bytes();
    [u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d])]
}

fn from_halves([first, second]: [u16; 2]) -> f32 {
    let ([a, b], [c, d]) = (first.to_ne_bytes(), second.to_ne_bytes());
    f32::from_ne_bytes([a, b, c, d])
}

/// The arithmetic of a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arithmetic {
    /// Activations and factors in bf16, sums in f32.
    Bf16,
    /// The same on CPUs that must widen the factors before multiplying. For training only.
    EmulatedBf16,
    /// Everything in f16.
    F16,
    /// Activations in bf16, factors in f16, sums in f32 except for short ones. Gradients are too
    /// small for f16 and activations may be too large, so the factors are scaled by a power of two,
    /// by which the sums are divided.
    Mixed,
    /// Activations, factors and sums in f32, and the filters as stated. For predictions only.
    F32(Lanes, Filters),
}

/// The format of filters where everything else is in f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Filters {
    /// In f32.
    Exact,
    /// Large filters of [`super::winograd`] in f16.
    InF16,
}

/// Minimum inputs of filters that are stored in f16. Smaller ones come from the caches, or are
/// multiplied by many rows, so that widening them costs more than it saves.
const LARGE: usize = 512;

impl Arithmetic {
    /// The fastest arithmetic with bf16 activations, for training; `None` if the CPU has none.
    pub(super) fn of_training() -> Option<Self> {
        let mut all = [
            Arithmetic::Mixed,
            Arithmetic::Bf16,
            Arithmetic::EmulatedBf16,
        ]
        .into_iter();
        all.find(|arithmetic| arithmetic.can_train())
    }

    /// Returns whether this CPU can train with it.
    pub(super) fn can_train(self) -> bool {
        match self {
            Arithmetic::Bf16 => kernel::multiplies_in_bf16(),
            Arithmetic::EmulatedBf16 => kernel::available(),
            Arithmetic::Mixed => kernel::available() && f16_kernel::available(),
            Arithmetic::F16 | Arithmetic::F32(..) => false,
        }
    }

    /// The arithmetic of [`super::winograd`] for a filter with this many inputs.
    pub(super) fn of_winograd(self, inputs: usize) -> Self {
        if inputs < LARGE {
            self.with_exact_filters()
        } else {
            self
        }
    }

    /// The same with filters in the format of the activations.
    pub(super) fn with_exact_filters(self) -> Self {
        match self {
            Arithmetic::F32(lanes, _) => Arithmetic::F32(lanes, Filters::Exact),
            Arithmetic::Bf16 | Arithmetic::EmulatedBf16 | Arithmetic::F16 | Arithmetic::Mixed => {
                self
            }
        }
    }

    /// Returns whether filters are in f16 and everything else in f32.
    const fn has_f16_filters(self) -> bool {
        matches!(self, Arithmetic::F32(_, Filters::InF16))
    }

    /// Returns whether factors are in f16.
    pub(super) fn has_f16_factors(self) -> bool {
        match self {
            Arithmetic::Bf16 | Arithmetic::EmulatedBf16 | Arithmetic::F32(..) => false,
            Arithmetic::F16 | Arithmetic::Mixed => true,
        }
    }

    /// Units of 16 bits of an activation or a factor.
    pub(super) const fn width(self) -> usize {
        match self {
            Arithmetic::Bf16 | Arithmetic::EmulatedBf16 | Arithmetic::F16 | Arithmetic::Mixed => 1,
            Arithmetic::F32(..) => 2,
        }
    }

    /// Units of 16 bits of a value of a filter.
    pub(super) const fn filter_width(self) -> usize {
        if self.has_f16_filters() {
            1
        } else {
            self.width()
        }
    }

    /// Rounds values of a filter.
    ///
    /// # Panics
    /// If the numbers of values differ.
    pub(super) fn round_filter(self, values: &[f32], out: &mut [u16]) {
        if self.has_f16_filters() {
            let out = out.reinterpret_cast_mut::<f16>();
            out.convert_from_f32_slice(values);
        } else {
            self.round_all(values, out);
        }
    }

    /// Returns whether all values of a filter are within f16. Where activations are in f16 too,
    /// [`super::network`] checks this.
    pub(super) fn holds(self, filter: &[u16]) -> bool {
        let is_finite = || {
            let numbers = filter.reinterpret_cast::<f16>();
            numbers.iter().all(|number| number.is_finite())
        };
        !self.has_f16_filters() || is_finite()
    }

    /// Rounds factors.
    ///
    /// # Panics
    /// If the numbers of values differ.
    pub(super) fn round_all(self, values: &[f32], out: &mut [u16]) {
        assert_eq!(values.len() * self.width(), out.len());
        match self {
            Arithmetic::F32(..) => {
                for (value, out) in values.iter().zip(out.as_chunks_mut::<2>().0) {
                    *out = to_halves(*value);
                }
            }
            Arithmetic::Bf16 | Arithmetic::EmulatedBf16 => {
                for (value, out) in values.iter().zip(out) {
                    *out = bf16::from_f32(*value).to_bits();
                }
            }
            // SAFETY: a network with this arithmetic exists only where the instructions are
            // available.
            Arithmetic::F16 | Arithmetic::Mixed => unsafe { f16_kernel::round(values, out) },
        }
    }

    /// The index in a panel of the factor of a row and a column.
    pub(super) fn place_of(self, row: usize, column: usize) -> usize {
        let of_pair = |column: usize| (row / 2 * PANEL + column) * 2 + row % 2;
        match self {
            Arithmetic::Bf16 | Arithmetic::EmulatedBf16 | Arithmetic::Mixed => of_pair(column),
            Arithmetic::F16 => of_pair(f16_kernel::place_of(column)),
            Arithmetic::F32(..) => row * PANEL + column,
        }
    }

    /// Units of 16 bits of a sum.
    pub(super) const fn sum_width(self) -> usize {
        match self {
            Arithmetic::Bf16
            | Arithmetic::EmulatedBf16
            | Arithmetic::Mixed
            | Arithmetic::F32(..) => 2,
            Arithmetic::F16 => 1,
        }
    }

    /// Values in the format of sums, for a [`Finish`].
    pub(super) fn sums(self, values: &[f32]) -> Aligned<u16> {
        let mut made = Aligned::zeros(values.len() * self.sum_width());
        let places = made.as_mut_slice();
        match self {
            Arithmetic::Bf16
            | Arithmetic::EmulatedBf16
            | Arithmetic::Mixed
            | Arithmetic::F32(..) => {
                for (value, place) in values.iter().zip(places.as_chunks_mut::<2>().0) {
                    *place = to_halves(*value);
                }
            }
            Arithmetic::F16 => self.round_all(values, places),
        }
        made
    }

    /// Sums of products, divided by the scale of their factors.
    ///
    /// # Safety
    /// As for [`native::product`], with room for sums of this kind.
    #[inline]
    pub(super) unsafe fn product(
        self,
        rows: Rows<'_>,
        panel: *const u16,
        scale: f32,
        out: *mut u16,
        stride: usize,
    ) {
        // SAFETY: guaranteed by the caller.
        unsafe {
            match self {
                Arithmetic::Bf16 => native::product(rows, panel, out.cast(), stride),
                Arithmetic::EmulatedBf16 => emulated::product(rows, panel, out.cast(), stride),
                Arithmetic::F16 => f16_kernel::product(rows, panel, out, stride),
                Arithmetic::Mixed => {
                    f16_kernel::wide_product(rows, panel, scale.recip(), out.cast(), stride)
                }
                Arithmetic::F32(lanes, Filters::Exact) => {
                    lanes.product::<false>(rows, panel, out.cast(), stride);
                }
                Arithmetic::F32(lanes, Filters::InF16) => {
                    lanes.product::<true>(rows, panel, out.cast(), stride);
                }
            }
        }
    }

    /// Adds sums of products, divided by the scale of their factors, to sums in f32. For training
    /// only, where activations are bf16.
    ///
    /// # Safety
    /// As for [`native::add_product`].
    #[inline]
    pub(super) unsafe fn add_product(
        self,
        rows: Rows<'_>,
        panel: *const u16,
        scale: f32,
        out: *mut f32,
        stride: usize,
    ) {
        // SAFETY: guaranteed by the caller.
        unsafe {
            match self {
                Arithmetic::Bf16 => native::add_product(rows, panel, out, stride),
                Arithmetic::EmulatedBf16 | Arithmetic::F32(..) => {
                    emulated::add_product(rows, panel, out, stride);
                }
                Arithmetic::F16 | Arithmetic::Mixed => {
                    f16_kernel::add_wide_product(rows, panel, scale.recip(), out, stride);
                }
            }
        }
    }

    /// Sums of products as in [`Arithmetic::product`], converted to activations by the epilogue.
    /// Filters are exact here.
    ///
    /// # Safety
    /// As for [`native::finished_product`], with a bias of sums of this kind.
    #[inline]
    pub(super) unsafe fn finished_product(
        self,
        rows: Rows<'_>,
        panel: *const u16,
        scale: f32,
        finish: Finish,
        out: &[*mut u16; ROWS],
    ) {
        // SAFETY: guaranteed by the caller.
        unsafe {
            match self {
                Arithmetic::Bf16 => native::finished_product(rows, panel, finish, out),
                Arithmetic::EmulatedBf16 => emulated::finished_product(rows, panel, finish, out),
                Arithmetic::F16 => f16_kernel::finished_product(rows, panel, finish, out),
                Arithmetic::Mixed => {
                    f16_kernel::wide_finished_product(rows, panel, scale.recip(), finish, out)
                }
                Arithmetic::F32(lanes, _) => {
                    lanes.finished_product(rows, panel, finish, out);
                }
            }
        }
    }

    /// # Safety
    /// As for [`kernel::transform_input`].
    #[inline]
    pub(super) unsafe fn transform_input(
        self,
        pixels: &[*const u16; 16],
        channels: usize,
        scale: f32,
        out: *mut u16,
        stride: usize,
    ) {
        // SAFETY: guaranteed by the caller.
        unsafe {
            match self {
                Arithmetic::Bf16 | Arithmetic::EmulatedBf16 => {
                    kernel::transform_input::<false>(pixels, channels, scale, out, stride)
                }
                Arithmetic::F16 => f16_kernel::transform_input(pixels, channels, out, stride),
                Arithmetic::Mixed => {
                    kernel::transform_input::<true>(pixels, channels, scale, out, stride)
                }
                Arithmetic::F32(lanes, _) => {
                    lanes.transform_input(pixels, channels, out.cast(), stride);
                }
            }
        }
    }

    /// # Safety
    /// As for [`kernel::transform_output`], with products and a bias of sums of this kind.
    #[inline]
    pub(super) unsafe fn transform_output(
        self,
        products: *const u16,
        stride: usize,
        finish: Finish,
        residual: &[*const u16; 4],
        out: &[*mut u16; 4],
    ) {
        // SAFETY: guaranteed by the caller.
        unsafe {
            match self {
                Arithmetic::Bf16 | Arithmetic::EmulatedBf16 | Arithmetic::Mixed => {
                    kernel::transform_output(products.cast(), stride, finish, residual, out)
                }
                Arithmetic::F16 => {
                    f16_kernel::transform_output(products, stride, finish, residual, out)
                }
                Arithmetic::F32(lanes, _) => {
                    lanes.transform_output(products.cast(), stride, finish, residual, out);
                }
            }
        }
    }

    /// # Safety
    /// As for [`kernel::largest`].
    #[inline]
    pub(super) unsafe fn largest(self, pixels: &[*const u16], channels: usize, out: *mut u16) {
        // SAFETY: guaranteed by the caller.
        unsafe {
            match self {
                Arithmetic::Bf16
                | Arithmetic::EmulatedBf16
                | Arithmetic::F16
                | Arithmetic::Mixed => {
                    kernel::largest(pixels, channels, out);
                }
                Arithmetic::F32(lanes, _) => lanes.largest(pixels, channels, out),
            }
        }
    }
}
