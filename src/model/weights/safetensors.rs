//! safetensors files, through the crate of that name, which checks every offset.

use ::safetensors::{Dtype, SafeTensors};

use super::error::quoted;
use super::{DType, FormatError, StateDict, TensorData};

/// The element types in common.
const DTYPES: [(Dtype, DType); 10] = [
    (Dtype::F32, DType::F32),
    (Dtype::F16, DType::F16),
    (Dtype::BF16, DType::BF16),
    (Dtype::F64, DType::F64),
    (Dtype::I64, DType::I64),
    (Dtype::I32, DType::I32),
    (Dtype::I16, DType::I16),
    (Dtype::I8, DType::I8),
    (Dtype::U8, DType::U8),
    (Dtype::BOOL, DType::Bool),
];

/// Whether a file begins with the length of a JSON object that lies within it.
pub(super) fn is_safetensors(bytes: &[u8]) -> bool {
    let Some((length, rest)) = bytes.split_first_chunk() else {
        return false;
    };
    rest.first() == Some(&b'{') && u64::from_le_bytes(*length) <= rest.len() as u64
}

/// Copies every tensor out of a safetensors file.
pub(super) fn read(bytes: &[u8]) -> Result<StateDict, FormatError> {
    let file = SafeTensors::deserialize(bytes)
        .map_err(|error| FormatError::malformed(error.to_string()))?;
    let mut state = StateDict::new();
    for (name, view) in file.iter() {
        let Some((_, dtype)) = DTYPES.iter().find(|(theirs, _)| *theirs == view.dtype()) else {
            return Err(FormatError::Unsupported(format!(
                "element type {} of tensor {}",
                view.dtype(),
                quoted(name)
            )));
        };
        let tensor = TensorData {
            dtype: *dtype,
            shape: view.shape().to_vec(),
            data: view.data().to_vec(),
        };
        state.insert(name.to_owned(), tensor);
    }
    Ok(state)
}
