//! The number formats of 16 bits that processors multiply in, and which instructions do it.

#![expect(
    unsafe_code,
    reason = "it hands pointers to the vector kernels, whose promises are its callers'"
)]

use half::{bf16, f16, slice::HalfFloatSliceExt};

use super::{
    f16 as f16_kernel,
    kernel::{self, Finish, ROWS, Rows},
    memory::Aligned,
};

/// What activations and filters are in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// bf16, with sums in f32.
    Bf16,
    /// f16, with sums in f16.
    F16,
}

impl Format {
    /// Whether this processor multiplies in it.
    pub(crate) fn is_available(self) -> bool {
        match self {
            Format::Bf16 => kernel::available(),
            Format::F16 => f16_kernel::available(),
        }
    }

    pub(super) fn round(self, value: f32) -> u16 {
        match self {
            Format::Bf16 => bf16::from_f32(value).to_bits(),
            Format::F16 => f16::from_f32(value).to_bits(),
        }
    }

    /// Rounds values, as many as there is room for.
    ///
    /// # Panics
    /// When the two have not the same length.
    pub(super) fn round_all(self, values: &[f32], out: &mut [u16]) {
        match self {
            Format::Bf16 => {
                for (value, out) in values.iter().zip(out) {
                    *out = bf16::from_f32(*value).to_bits();
                }
            }
            // SAFETY: a network of this format is made only where the instructions are available.
            Format::F16 => unsafe { f16_kernel::round(values, out) },
        }
    }

    /// # Panics
    /// When the two have not the same length.
    pub(super) fn widen_all(self, values: &[u16], out: &mut [f32]) {
        use half::slice::HalfBitsSliceExt;
        match self {
            Format::Bf16 => values.reinterpret_cast::<bf16>().convert_to_f32_slice(out),
            Format::F16 => values.reinterpret_cast::<f16>().convert_to_f32_slice(out),
        }
    }

    /// Where a column of a panel lies among the 64 of a pair of rows.
    pub(super) fn place_of(self, column: usize) -> usize {
        match self {
            Format::Bf16 => column,
            Format::F16 => f16_kernel::place_of(column),
        }
    }

    /// Numbers of 16 bits that a sum takes the room of.
    pub(super) const fn sum_width(self) -> usize {
        match self {
            Format::Bf16 => 2,
            Format::F16 => 1,
        }
    }

    /// Values as sums are, for a [`Finish`].
    pub(super) fn sums(self, values: &[f32]) -> Aligned<u16> {
        let mut made = Aligned::zeros(values.len() * self.sum_width());
        let places = made.as_mut_slice();
        match self {
            Format::Bf16 => {
                for (value, place) in values.iter().zip(places.chunks_exact_mut(2)) {
                    let [a, b, c, d] = value.to_ne_bytes();
                    place
                        .copy_from_slice(&[u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d])]);
                }
            }
            Format::F16 => {
                for (value, place) in values.iter().zip(places) {
                    *place = self.round(*value);
                }
            }
        }
        made
    }

    /// # Safety
    /// As for [`kernel::product`], with room for sums of this format.
    #[inline]
    pub(super) unsafe fn product(
        self,
        rows: Rows<'_>,
        panel: *const u16,
        out: *mut u16,
        stride: usize,
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Format::Bf16 => kernel::product(rows, panel, out.cast(), stride),
                Format::F16 => f16_kernel::product(rows, panel, out, stride),
            }
        }
    }

    /// # Safety
    /// As for [`kernel::finished_product`], with a bias of sums of this format.
    #[inline]
    pub(super) unsafe fn finished_product(
        self,
        rows: Rows<'_>,
        panel: *const u16,
        finish: Finish,
        out: &[*mut u16; ROWS],
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Format::Bf16 => kernel::finished_product(rows, panel, finish, out),
                Format::F16 => f16_kernel::finished_product(rows, panel, finish, out),
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
        out: *mut u16,
        stride: usize,
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Format::Bf16 => kernel::transform_input(pixels, channels, out, stride),
                Format::F16 => f16_kernel::transform_input(pixels, channels, out, stride),
            }
        }
    }

    /// # Safety
    /// As for [`kernel::transform_output`], with products and a bias of sums of this format.
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
                Format::Bf16 => {
                    kernel::transform_output(products.cast(), stride, finish, residual, out)
                }
                Format::F16 => {
                    f16_kernel::transform_output(products, stride, finish, residual, out)
                }
            }
        }
    }
}
