//! Named libtorch tensors, from and to the content of weights files.

use std::collections::BTreeMap;

use safetensors::tensor::{Dtype, TensorView};
use tch::{Device, Kind, Tensor};

use super::{
    Error,
    layout::layout,
    weights::{self, DType, Mismatch, StateDict, TensorData, check_shapes},
};

/// Converts a state dict that has exactly the tensors of the network, head included.
///
/// # Errors
/// Other names or shapes than the network's.
pub(crate) fn exact(found: &StateDict) -> Result<BTreeMap<String, Tensor>, Error> {
    check_shapes(found, &layout(1), &Mismatch::default())?;
    found
        .iter()
        .map(|(name, data)| Ok((name.clone(), tensor(data)?)))
        .collect()
}

/// Converts one tensor: counters stay i64, all other types become f32.
pub(super) fn tensor(data: &TensorData) -> Result<Tensor, Error> {
    let sides: Vec<i64> = data.shape.iter().map(|side| *side as i64).collect();
    if data.dtype == DType::I64 {
        return Ok(Tensor::f_from_data_size(&data.data, &sides, Kind::Int64)?);
    }
    Ok(Tensor::f_from_slice(&data.to_f32())?.f_view(sides.as_slice())?)
}

/// A handle to the tensor of this name.
///
/// # Panics
/// If it is missing: names and shapes are checked where weights enter the program.
pub(super) fn entry(state: &BTreeMap<String, Tensor>, name: &str) -> Tensor {
    match state.get(name) {
        Some(tensor) => tensor.shallow_clone(),
        None => panic!(
            "weights without {name} reached the network; they are checked against the layout on entry"
        ),
    }
}

/// The same values with the channels of a pixel adjacent in memory, which oneDNN and cuDNN process
/// faster; the shape stays.
pub(crate) fn channels_last(images: &Tensor) -> Result<Tensor, Error> {
    let pixels = images.f_permute([0, 2, 3, 1])?.f_contiguous()?;
    Ok(pixels.f_permute([0, 3, 1, 2])?)
}

/// Serializes the tensors as safetensors, parameters in f32 and counters in i64, with the model's
/// description in the metadata.
pub(super) fn serialize(
    state: &BTreeMap<String, Tensor>,
    description: String,
) -> Result<Vec<u8>, Error> {
    let mut entries = Vec::with_capacity(state.len());
    for (name, tensor) in state {
        let (kind, dtype, width) = if tensor.kind() == Kind::Int64 {
            (Kind::Int64, Dtype::I64, 8)
        } else {
            (Kind::Float, Dtype::F32, 4)
        };
        let tensor = tensor
            .f_detach()?
            .f_to_device(Device::Cpu)?
            .f_to_kind(kind)?
            .f_contiguous()?;
        let shape: Vec<usize> = tensor.size().iter().map(|side| *side as usize).collect();
        let count = shape.iter().product::<usize>();
        let mut bytes = vec![0; count * width];
        tensor.f_copy_data_u8(&mut bytes, count)?;
        entries.push((name.as_str(), dtype, shape, bytes));
    }
    let views = entries.iter().map(|(name, dtype, shape, bytes)| {
        let view = TensorView::new(*dtype, shape.clone(), bytes);
        (
            *name,
            view.expect("the bytes have the length of this shape"),
        )
    });
    let metadata = Some(weights::metadata(description));
    safetensors::serialize(views, metadata).map_err(|error| std::io::Error::other(error).into())
}
