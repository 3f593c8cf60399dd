//! Slices of the values of CPU tensors, which tch does not offer.

#![expect(
    unsafe_code,
    reason = "every step reads and writes slices; copying them would cost more than the computation"
)]

use tch::{Device, Kind, Tensor};

/// The values of a contiguous f32 tensor.
///
/// Other tensors may share the memory, such as views of a flat buffer. Nothing else may use them
/// while the slice lives, which holds if one thread owns them all.
///
/// # Panics
/// If the tensor has another element type, is on another device or is not contiguous.
pub(crate) fn values_mut(tensor: &mut Tensor) -> &mut [f32] {
    check(tensor, Kind::Float);
    // An empty tensor may have no address.
    if tensor.numel() == 0 {
        return &mut [];
    }
    // SAFETY: the tensor owns this many contiguous f32 values and is borrowed mutably; callers
    // ensure exclusive use as documented above.
    unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast(), tensor.numel()) }
}

/// The bits of a contiguous bf16 or f16 tensor; otherwise as [`values_mut`].
///
/// # Panics
/// As [`values_mut`].
pub(crate) fn bits_mut(tensor: &mut Tensor) -> &mut [u16] {
    let kind = tensor.kind();
    assert!(
        matches!(kind, Kind::BFloat16 | Kind::Half),
        "a tensor of 16 bits"
    );
    check(tensor, kind);
    if tensor.numel() == 0 {
        return &mut [];
    }
    // SAFETY: as in `values_mut`; each value has 16 bits, and all patterns are valid.
    unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast(), tensor.numel()) }
}

fn check(tensor: &Tensor, kind: Kind) {
    assert!(
        tensor.kind() == kind && tensor.device() == Device::Cpu && tensor.is_contiguous(),
        "only contiguous CPU tensors of this element type have slices"
    );
}
