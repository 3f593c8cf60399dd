//! A tensor as bytes: element type, shape and little-endian, contiguous data.

use std::{collections::BTreeMap, fmt};

use half::{bf16, f16};

/// Tensors by parameter name, for example `layer4.1.bn2.running_var`.
pub type StateDict = BTreeMap<String, TensorData>;

/// One tensor, independent of any tensor library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorData {
    /// Type of one element.
    pub dtype: DType,
    /// Length of each dimension; empty for a scalar.
    pub shape: Vec<usize>,
    /// The elements in row-major order, little endian: `shape.iter().product() * dtype.size()`
    /// bytes.
    pub data: Vec<u8>,
}

impl TensorData {
    /// The elements as 32-bit floats in row-major order, rounded where the type is wider.
    pub fn to_f32(&self) -> Vec<f32> {
        match self.dtype {
            DType::F32 => self.convert(f32::from_le_bytes),
            DType::F16 => self.convert(|bytes| f16::from_le_bytes(bytes).to_f32()),
            DType::BF16 => self.convert(|bytes| bf16::from_le_bytes(bytes).to_f32()),
            DType::F64 => self.convert(|bytes| f64::from_le_bytes(bytes) as f32),
            DType::I64 => self.convert(|bytes| i64::from_le_bytes(bytes) as f32),
            DType::I32 => self.convert(|bytes| i32::from_le_bytes(bytes) as f32),
            DType::I16 => self.convert(|bytes| f32::from(i16::from_le_bytes(bytes))),
            DType::I8 => self.convert(|bytes| f32::from(i8::from_le_bytes(bytes))),
            DType::U8 => self.convert(|[byte]| f32::from(byte)),
            DType::Bool => self.convert(|[byte]| f32::from(u8::from(byte != 0))),
        }
    }

    fn convert<const SIZE: usize>(&self, one: impl Fn([u8; SIZE]) -> f32) -> Vec<f32> {
        let (elements, _) = self.data.as_chunks::<SIZE>();
        elements.iter().map(|bytes| one(*bytes)).collect()
    }
}

/// The type of a tensor's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DType {
    /// 32-bit float.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of a 32-bit float.
    BF16,
    /// 64-bit float.
    F64,
    /// 64-bit signed integer.
    I64,
    /// 32-bit signed integer.
    I32,
    /// 16-bit signed integer.
    I16,
    /// 8-bit signed integer.
    I8,
    /// 8-bit unsigned integer.
    U8,
    /// One byte, 0 or 1.
    Bool,
}

impl DType {
    /// Bytes in one element.
    pub fn size(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::BF16 | Self::I16 => 2,
            Self::I8 | Self::U8 | Self::Bool => 1,
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
