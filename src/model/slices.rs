//! The numbers of a tensor on the processor as a slice, which tch does not give out.

#![expect(
    unsafe_code,
    reason = "passes over memory in every step take slices; a copy of each would cost more than the passes"
)]

use tch::{Device, Kind, Tensor};

/// The numbers of a contiguous f32 tensor.
///
/// Other tensors may share them, such as the parameters' views a flat buffer; nothing else may compute with those while the slice lives, which holds where
/// one thread owns them all.
///
/// # Panics
/// When the tensor is of another kind, on another device or not contiguous.
pub(crate) fn values_mut(tensor: &mut Tensor) -> &mut [f32] {
    check(tensor, Kind::Float);
    // SAFETY: the tensor owns this many contiguous f32 values for as long as it lives, and is borrowed alone; its callers keep the promise above.
    unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast(), tensor.numel()) }
}

/// The numbers of a contiguous tensor of bf16 or f16, as bits; otherwise as [`values_mut`].
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
    // SAFETY: as in `values_mut`; both formats are 16 bits of which each pattern is a number.
    unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast(), tensor.numel()) }
}

fn check(tensor: &Tensor, kind: Kind) {
    assert!(
        tensor.kind() == kind && tensor.device() == Device::Cpu && tensor.is_contiguous(),
        "a slice is of contiguous numbers of one kind on the processor"
    );
}
