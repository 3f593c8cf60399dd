//! safetensors files, read with the crate of that name, which checks every offset.

use std::collections::HashMap;

use ::safetensors::{Dtype, SafeTensors};

use super::{
    DType, FormatError, Found, StateDict, TensorData,
    select::{self, Group, Selection, TOP},
    text::quoted,
};

/// The metadata key of the model description.
const DESCRIPTION_KEY: &str = "visage";
/// The element types that both formats have.
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

/// The metadata of a file with a model description. It must stay the only entry: the order of
/// several would be random, and the same model would yield different files.
pub(crate) fn metadata(description: String) -> HashMap<String, String> {
    HashMap::from([(DESCRIPTION_KEY.to_owned(), description)])
}

/// A copy of a safetensors file with the description added; `None` if it has one already.
///
/// # Errors
/// A damaged file.
pub(crate) fn described(bytes: &[u8], description: String) -> Result<Option<Vec<u8>>, FormatError> {
    let damaged = |error: ::safetensors::SafeTensorError| FormatError::malformed(error.to_string());
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(damaged)?;
    let entries = header.metadata().clone().unwrap_or_default();
    if entries.contains_key(DESCRIPTION_KEY) {
        return Ok(None);
    }
    let file = SafeTensors::deserialize(bytes).map_err(damaged)?;
    let entries = entries.into_iter().chain(metadata(description)).collect();
    let copy = ::safetensors::serialize(file.iter(), Some(entries)).map_err(damaged)?;
    Ok(Some(copy))
}

/// Returns whether a file starts with the length of a JSON object within it.
pub(super) fn is_safetensors(bytes: &[u8]) -> bool {
    let Some((length, rest)) = bytes.split_first_chunk() else {
        return false;
    };
    rest.first() == Some(&b'{') && u64::from_le_bytes(*length) <= rest.len() as u64
}

/// Reads the selected tensors of a safetensors file.
pub(super) fn read(bytes: &[u8], selection: Selection<'_>) -> Result<Found, FormatError> {
    let damaged = |error: ::safetensors::SafeTensorError| FormatError::malformed(error.to_string());
    let file = SafeTensors::deserialize(bytes).map_err(damaged)?;
    let tensors = file
        .iter()
        .map(|(name, view)| (name, view.shape().to_vec()))
        .collect();
    let group = Group {
        paths: vec![TOP.to_owned()],
        tensors,
        others: Vec::new(),
    };
    let choice = select::choose(&[group], selection)?;
    let mut state = StateDict::new();
    for (name, view) in file.iter() {
        let Some(stripped) = name.strip_prefix(&choice.prefix) else {
            continue;
        };
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
        state.insert(stripped.to_owned(), tensor);
    }
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(damaged)?;
    let metadata = header.metadata().as_ref();
    Ok(Found {
        state,
        place: TOP.to_owned(),
        prefix: choice.prefix,
        description: metadata.and_then(|entries| entries.get(DESCRIPTION_KEY).cloned()),
    })
}
