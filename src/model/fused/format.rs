//! The number formats that the network is computed in, and which instructions do it.

#![expect(
    unsafe_code,
    reason = "it hands pointers to the vector kernels, whose promises are its callers'"
)]

use half::{
    bf16, f16,
    slice::{HalfBitsSliceExt, HalfFloatSliceExt},
};

use super::{
    super::precision::Precision,
    f16 as f16_kernel,
    kernel::{self, Finish, PANEL, ROWS, Rows},
    memory::Aligned,
    products::{native, widened},
    single::Lanes,
};

impl Precision {
    /// Returns whether this CPU has the instructions of the fused kernels in this precision.
    pub(crate) fn has_fused_kernels(self) -> bool {
        self.arithmetic().is_some()
    }

    /// Places of 16 bits that a number takes.
    pub(crate) fn width(self) -> usize {
        match self {
            Precision::Bf16 | Precision::F16 => 1,
            Precision::F32 | Precision::F16Weights => 2,
        }
    }

    /// # Panics
    /// When there are not as many values as there is room for.
    pub(crate) fn widen_all(self, values: &[u16], out: &mut [f32]) {
        match self {
            Precision::Bf16 => values.reinterpret_cast::<bf16>().convert_to_f32_slice(out),
            Precision::F16 => values.reinterpret_cast::<f16>().convert_to_f32_slice(out),
            Precision::F32 | Precision::F16Weights => {
                let (values, _) = values.as_chunks::<2>();
                assert_eq!(values.len(), out.len());
                for (value, out) in values.iter().zip(out) {
                    *out = from_places(*value);
                }
            }
        }
    }

    /// How this processor multiplies in it, if it does.
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

fn to_places(value: f32) -> [u16; 2] {
    let [a, b, c, d] = value.to_ne_bytes();
    [u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d])]
}

fn from_places([first, second]: [u16; 2]) -> f32 {
    let ([a, b], [c, d]) = (first.to_ne_bytes(), second.to_ne_bytes());
    f32::from_ne_bytes([a, b, c, d])
}

/// How a convolution multiplies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arithmetic {
    /// Activations and factors in bf16, sums in f32.
    Bf16,
    /// The same on processors that must widen the factors before they multiply. For trainings alone.
    Widened,
    /// All in f16.
    F16,
    /// Activations in bf16, factors in f16, sums in f32 but for short ones. Gradients are too small for f16 and activations may be too large, so the factors made of either are
    /// multiplied with a power of two, by which their sums are divided.
    Mixed,
    /// Activations, factors and sums in f32, and the filters as told. Not for trainings.
    F32(Lanes, Filters),
}

/// How filters are kept where all else is in f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Filters {
    /// In f32.
    Exact,
    /// Large ones of [`super::winograd`] in f16.
    InF16,
}

/// Inputs of the filters that are worth having in f16. Smaller ones come from the caches, or are multiplied with so many rows that to widen them costs what is won.
const LARGE: usize = 512;

impl Arithmetic {
    /// The fastest whose activations are bf16, for trainings; `None` where the processor has none.
    pub(super) fn of_training() -> Option<Self> {
        let mut all = [Arithmetic::Mixed, Arithmetic::Bf16, Arithmetic::Widened].into_iter();
        all.find(|arithmetic| arithmetic.can_train())
    }

    /// Whether this processor trains with it.
    pub(super) fn can_train(self) -> bool {
        match self {
            Arithmetic::Bf16 => kernel::multiplies_in_bf16(),
            Arithmetic::Widened => kernel::available(),
            Arithmetic::Mixed => kernel::available() && f16_kernel::available(),
            Arithmetic::F16 | Arithmetic::F32(..) => false,
        }
    }

    /// How [`super::winograd`] multiplies with a filter of so many inputs in a network that is computed so.
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
            Arithmetic::Bf16 | Arithmetic::Widened | Arithmetic::F16 | Arithmetic::Mixed => self,
        }
    }

    /// Whether filters are in f16 and all else in f32.
    const fn has_f16_filters(self) -> bool {
        matches!(self, Arithmetic::F32(_, Filters::InF16))
    }

    /// Whether factors are in f16.
    pub(super) fn has_f16_factors(self) -> bool {
        match self {
            Arithmetic::Bf16 | Arithmetic::Widened | Arithmetic::F32(..) => false,
            Arithmetic::F16 | Arithmetic::Mixed => true,
        }
    }

    /// Places of 16 bits that an activation takes, and so does a factor made of it.
    pub(super) const fn width(self) -> usize {
        match self {
            Arithmetic::Bf16 | Arithmetic::Widened | Arithmetic::F16 | Arithmetic::Mixed => 1,
            Arithmetic::F32(..) => 2,
        }
    }

    /// Places that a number of a filter takes.
    pub(super) const fn filter_width(self) -> usize {
        if self.has_f16_filters() {
            1
        } else {
            self.width()
        }
    }

    /// Rounds numbers of a filter, as many as there is room for.
    ///
    /// # Panics
    /// When the two have not the same length in numbers.
    pub(super) fn round_filter(self, values: &[f32], out: &mut [u16]) {
        if self.has_f16_filters() {
            let out = out.reinterpret_cast_mut::<f16>();
            out.convert_from_f32_slice(values);
        } else {
            self.round_all(values, out);
        }
    }

    /// Whether a filter holds what it was made of: none of its numbers is beyond f16. Where activations are in f16 too, [`super::network`] looks at those.
    pub(super) fn holds(self, filter: &[u16]) -> bool {
        let is_finite = || {
            let numbers = filter.reinterpret_cast::<f16>();
            numbers.iter().all(|number| number.is_finite())
        };
        !self.has_f16_filters() || is_finite()
    }

    /// Rounds factors, as many as there is room for.
    ///
    /// # Panics
    /// When the two have not the same length in numbers.
    pub(super) fn round_all(self, values: &[f32], out: &mut [u16]) {
        assert_eq!(values.len() * self.width(), out.len());
        match self {
            Arithmetic::F32(..) => {
                for (value, out) in values.iter().zip(out.as_chunks_mut::<2>().0) {
                    *out = to_places(*value);
                }
            }
            Arithmetic::Bf16 | Arithmetic::Widened => {
                for (value, out) in values.iter().zip(out) {
                    *out = bf16::from_f32(*value).to_bits();
                }
            }
            // SAFETY: a network that multiplies so is made only where the instructions are available.
            Arithmetic::F16 | Arithmetic::Mixed => unsafe { f16_kernel::round(values, out) },
        }
    }

    /// Which number of a panel the factor of a row and a column is.
    pub(super) fn place_of(self, row: usize, column: usize) -> usize {
        let of_pair = |column: usize| (row / 2 * PANEL + column) * 2 + row % 2;
        match self {
            Arithmetic::Bf16 | Arithmetic::Widened | Arithmetic::Mixed => of_pair(column),
            Arithmetic::F16 => of_pair(f16_kernel::place_of(column)),
            Arithmetic::F32(..) => row * PANEL + column,
        }
    }

    /// Numbers of 16 bits that a sum takes the room of.
    pub(super) const fn sum_width(self) -> usize {
        match self {
            Arithmetic::Bf16 | Arithmetic::Widened | Arithmetic::Mixed | Arithmetic::F32(..) => 2,
            Arithmetic::F16 => 1,
        }
    }

    /// Values as sums are, for a [`Finish`].
    pub(super) fn sums(self, values: &[f32]) -> Aligned<u16> {
        let mut made = Aligned::zeros(values.len() * self.sum_width());
        let places = made.as_mut_slice();
        match self {
            Arithmetic::Bf16 | Arithmetic::Widened | Arithmetic::Mixed | Arithmetic::F32(..) => {
                for (value, place) in values.iter().zip(places.as_chunks_mut::<2>().0) {
                    *place = to_places(*value);
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
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Arithmetic::Bf16 => native::product(rows, panel, out.cast(), stride),
                Arithmetic::Widened => widened::product(rows, panel, out.cast(), stride),
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

    /// Adds sums of products, divided by the scale of their factors, to sums in f32. Only for trainings, whose activations are bf16.
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
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Arithmetic::Bf16 => native::add_product(rows, panel, out, stride),
                Arithmetic::Widened | Arithmetic::F32(..) => {
                    widened::add_product(rows, panel, out, stride);
                }
                Arithmetic::F16 | Arithmetic::Mixed => {
                    f16_kernel::add_wide_product(rows, panel, scale.recip(), out, stride);
                }
            }
        }
    }

    /// Sums of products as [`Arithmetic::product`] has them, finished as activations. Filters are exact here.
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
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Arithmetic::Bf16 => native::finished_product(rows, panel, finish, out),
                Arithmetic::Widened => widened::finished_product(rows, panel, finish, out),
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
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Arithmetic::Bf16 | Arithmetic::Widened => {
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
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Arithmetic::Bf16 | Arithmetic::Widened | Arithmetic::Mixed => {
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
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Arithmetic::Bf16 | Arithmetic::Widened | Arithmetic::F16 | Arithmetic::Mixed => {
                    kernel::largest(pixels, channels, out);
                }
                Arithmetic::F32(lanes, _) => lanes.largest(pixels, channels, out),
            }
        }
    }
}
