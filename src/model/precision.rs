//! Number formats of the network's arithmetic, and which of them a device supports.

use tch::{Device, Kind};

use super::Error;

/// The number format that a network computes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// 32 bits.
    F32,
    /// 16 bits with the exponent of f32 (bfloat16).
    Bf16,
    /// 16 bits with a longer fraction and a shorter exponent (IEEE 754 binary16).
    F16,
    /// f32 with large filters stored in f16, which halves the memory traffic of small batches.
    F16Weights,
}

/// How the precision of predictions is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PrecisionPolicy {
    /// The fastest precision of the device that changes ages little enough.
    Auto,
    /// This precision, however much it changes ages.
    Only(Precision),
}

impl Precision {
    /// The name in settings, logs and responses.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
            Self::F16Weights => "f16-weights",
        }
    }

    /// The element type of libtorch's activations.
    pub fn kind(self) -> Kind {
        match self {
            Precision::F32 | Precision::F16Weights => Kind::Float,
            Precision::Bf16 => Kind::BFloat16,
            Precision::F16 => Kind::Half,
        }
    }

    /// The precisions that are worth trying for predictions on the device, fastest first.
    pub fn candidates(device: Device) -> Vec<Self> {
        let has_kernels =
            |precision: Precision| device == Device::Cpu && precision.has_fused_kernels();
        let mut candidates = Vec::new();
        if has_kernels(Precision::F16) {
            candidates.push(Precision::F16);
        }
        if supports_bf16(device) {
            candidates.push(Precision::Bf16);
        }
        if has_kernels(Precision::F16Weights) {
            candidates.push(Precision::F16Weights);
        }
        candidates.push(Precision::F32);
        candidates
    }
}

impl PrecisionPolicy {
    /// Refuses a precision that no network on the device can be served in.
    ///
    /// # Errors
    /// [`Error::Precision`] for f16 and f16-weights on a GPU, or on a CPU without the instructions.
    pub(crate) fn check(self, device: Device) -> Result<(), Error> {
        let (precision, reason) = match self {
            PrecisionPolicy::Only(precision @ Precision::F16) => {
                (precision, "it needs a CPU with AVX512_FP16")
            }
            PrecisionPolicy::Only(precision @ Precision::F16Weights) => (
                precision,
                "it needs a CPU with AVX-512, or with AVX2, FMA and F16C",
            ),
            PrecisionPolicy::Auto | PrecisionPolicy::Only(Precision::F32 | Precision::Bf16) => {
                return Ok(());
            }
        };
        if device == Device::Cpu && precision.has_fused_kernels() {
            return Ok(());
        }
        Err(Error::Precision { precision, reason })
    }
}

/// Returns whether the device multiplies bf16 natively; CPUs without the instructions only emulate
/// it.
pub(crate) fn supports_bf16(device: Device) -> bool {
    match device {
        Device::Cuda(_) => true,
        Device::Cpu => cpu_supports_bf16(),
        Device::Mps | Device::Vulkan => false,
    }
}

#[cfg(target_arch = "x86_64")]
fn cpu_supports_bf16() -> bool {
    std::arch::is_x86_feature_detected!("avx512bf16")
}

#[cfg(not(target_arch = "x86_64"))]
fn cpu_supports_bf16() -> bool {
    false
}
