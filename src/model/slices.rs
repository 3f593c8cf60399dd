//! Slices of the values of CPU tensors, which tch does not offer.
//!
//! All functions are unsafe: a tensor may share its memory with others, such as a shallow clone or
//! a view of a flat buffer, and the borrow of one tensor does not prevent the use of another.

#![expect(
    unsafe_code,
    reason = "every step reads and writes slices; copying them would cost more than the computation"
)]

use tch::{Device, Kind, Tensor};

/// The values of a contiguous f32 tensor.
///
/// # Safety
/// While the slice lives, nothing may write to the memory of the tensor, through this tensor or
/// another one.
///
/// # Panics
/// If the tensor has another element type, is on another device or is not contiguous.
pub(crate) unsafe fn values(tensor: &Tensor) -> &[f32] {
    check(tensor, Kind::Float);
    // An empty tensor may have no address.
    if tensor.numel() == 0 {
        return &[];
    }
    // SAFETY: the tensor has this many contiguous f32 values, which callers do not change.
    unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast(), tensor.numel()) }
}

/// The values of a contiguous f32 tensor, to change them.
///
/// # Safety
/// While the slice lives, nothing may read or write the memory of the tensor, through this tensor
/// or another one.
///
/// # Panics
/// As [`values`].
pub(crate) unsafe fn values_mut(tensor: &mut Tensor) -> &mut [f32] {
    check(tensor, Kind::Float);
    if tensor.numel() == 0 {
        return &mut [];
    }
    // SAFETY: the tensor has this many contiguous f32 values, for whose exclusive use callers care.
    unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast(), tensor.numel()) }
}

/// The bits of a contiguous bf16 or f16 tensor.
///
/// # Safety
/// As [`values`].
///
/// # Panics
/// As [`values`].
pub(crate) unsafe fn bits(tensor: &Tensor) -> &[u16] {
    check_16_bits(tensor);
    if tensor.numel() == 0 {
        return &[];
    }
    // SAFETY: as in `values`; each value has 16 bits, and all patterns are valid.
    unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast(), tensor.numel()) }
}

/// The bits of a contiguous bf16 or f16 tensor, to change them.
///
/// # Safety
/// As [`values_mut`].
///
/// # Panics
/// As [`values`].
pub(crate) unsafe fn bits_mut(tensor: &mut Tensor) -> &mut [u16] {
    check_16_bits(tensor);
    if tensor.numel() == 0 {
        return &mut [];
    }
    // SAFETY: as in `values_mut`; each value has 16 bits, and all patterns are valid.
    unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast(), tensor.numel()) }
}

fn check_16_bits(tensor: &Tensor) {
    let kind = tensor.kind();
    assert!(
        matches!(kind, Kind::BFloat16 | Kind::Half),
        "a tensor of 16 bits"
    );
    check(tensor, kind);
}

fn check(tensor: &Tensor, kind: Kind) {
    assert!(
        tensor.kind() == kind && tensor.device() == Device::Cpu && tensor.is_contiguous(),
        "only contiguous CPU tensors of this element type have slices"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zeros(shape: &[i64], kind: Kind) -> Tensor {
        Tensor::zeros(shape, (kind, Device::Cpu))
    }

    #[test]
    fn slices_are_the_memory_of_the_tensor() {
        let mut tensor = zeros(&[2, 3], Kind::Float);
        // SAFETY: nothing else uses the memory of this tensor, here and below.
        let changed = unsafe { values_mut(&mut tensor) };
        changed[4] = 2.5;
        assert_eq!(tensor.double_value(&[1, 1]), 2.5);
        // SAFETY: as above.
        assert_eq!(unsafe { values(&tensor) }, [0.0, 0.0, 0.0, 0.0, 2.5, 0.0]);
        let mut half = zeros(&[2], Kind::BFloat16);
        // SAFETY: as above.
        let changed = unsafe { bits_mut(&mut half) };
        // 1.0 in bfloat16 is the upper half of 0x3f80_0000.
        changed[1] = 0x3f80;
        assert_eq!(half.double_value(&[1]), 1.0);
        // SAFETY: as above.
        assert_eq!(unsafe { bits(&half) }, [0, 0x3f80]);
    }

    #[test]
    fn empty_tensors_have_empty_slices() {
        let mut tensor = zeros(&[0, 3], Kind::Float);
        let mut half = zeros(&[0], Kind::Half);
        // SAFETY: the tensors are empty.
        unsafe {
            assert!(values(&tensor).is_empty() && values_mut(&mut tensor).is_empty());
            assert!(bits(&half).is_empty() && bits_mut(&mut half).is_empty());
        }
    }

    #[test]
    fn other_layouts_and_types_are_refused() {
        let refused = |tensor: Tensor| {
            let read = move || {
                // SAFETY: nothing else uses the tensor.
                unsafe { values(&tensor) }.len()
            };
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(read)).is_err()
        };
        assert!(refused(zeros(&[2, 3], Kind::Float).transpose(0, 1)));
        assert!(refused(zeros(&[2], Kind::Double)));
        assert!(!refused(zeros(&[2, 3], Kind::Float)));
    }
}
