//! Converts the input tensor of a request to images.

use std::sync::Arc;

use bytes::{Buf, Bytes};
use tonic::Status;

use super::tensors::{BYTES, Data, FP32, IMAGE, INPUT, PREFIX, Tensor};
use crate::{
    inference::{Image, ServedModel},
    services::status,
};

/// Reads the images of a request. `check_count` is called before memory is allocated for them.
pub(super) fn images(
    mut inputs: Vec<Tensor>,
    model: &ServedModel,
    check_count: impl Fn(&str, usize) -> Result<(), Status>,
) -> Result<Vec<Image>, Status> {
    for (index, tensor) in inputs.iter().enumerate() {
        if tensor.name != IMAGE && tensor.name != INPUT {
            return Err(status::invalid(
                &format!("inputs[{index}].name"),
                format_args!(
                    "must be {IMAGE} ({BYTES}) or {INPUT} ({FP32}), got {:?} for {}",
                    tensor.name, model.name
                ),
            ));
        }
    }
    let count = inputs.len();
    let mut tensor = inputs.pop().filter(|_| count == 1).ok_or_else(|| {
        status::invalid(
            "inputs",
            format_args!(
                "must be exactly one of {IMAGE} ({BYTES}) and {INPUT} ({FP32}), got {count}"
            ),
        )
    })?;
    let data = std::mem::replace(&mut tensor.data, Data::Missing);
    let reader = Reader {
        tensor: &tensor,
        model,
        check_count,
    };
    if tensor.name == IMAGE {
        reader.encoded(data)
    } else {
        reader.prepared(data)
    }
}

/// Reads the one tensor of a request.
struct Reader<'a, F> {
    tensor: &'a Tensor,
    model: &'a ServedModel,
    check_count: F,
}

impl<F: Fn(&str, usize) -> Result<(), Status>> Reader<'_, F> {
    fn encoded(self, data: Data) -> Result<Vec<Image>, Status> {
        self.check_datatype(BYTES)?;
        let count = match *self.tensor.shape.as_slice() {
            [count] | [count, 1] => usize::try_from(count).ok().filter(|count| *count > 0),
            _ => None,
        };
        // Also if the shape is the size of one image in bytes.
        if let Data::Elements(elements) = &data
            && count != Some(elements.len())
        {
            return Err(self.bad_data(&format!(
                "the shape of {0} images must be [{0}] or [{0},1], got {1:?}",
                elements.len(),
                self.tensor.shape
            )));
        }
        let count = count.ok_or_else(|| self.bad_shape("[N] or [N,1]"))?;
        (self.check_count)("inputs[0].shape", count)?;
        let elements = match data {
            Data::Raw(raw) => split(raw, count).map_err(|reason| self.bad_data(&reason))?,
            Data::Elements(elements) => elements,
            Data::Numbers(_) | Data::OtherType => {
                return Err(self.bad_data("they must be in the field for BYTES"));
            }
            Data::Missing => return Err(self.no_data()),
        };
        Ok(elements.into_iter().map(Image::Encoded).collect())
    }

    fn prepared(self, data: Data) -> Result<Vec<Image>, Status> {
        self.check_datatype(FP32)?;
        let side = i64::from(self.model.input.size);
        let count = match *self.tensor.shape.as_slice() {
            [count, 3, height, width] if height == side && width == side => {
                usize::try_from(count).ok().filter(|count| *count > 0)
            }
            _ => None,
        };
        let count = count.ok_or_else(|| self.bad_shape(&format!("[N,3,{side},{side}]")))?;
        (self.check_count)("inputs[0].shape", count)?;
        let values = self.model.input.values();
        let wrong_length = |found: usize, unit: &str, wanted: usize| {
            self.bad_data(&format!(
                "the shape {:?} needs {wanted} {unit}, got {found}",
                self.tensor.shape
            ))
        };
        match data {
            Data::Raw(raw) => {
                let one = values * size_of::<f32>();
                if raw.len() != count * one {
                    return Err(wrong_length(raw.len(), "bytes", count * one));
                }
                let image = |index| Image::TensorBytes(raw.slice(index * one..(index + 1) * one));
                Ok((0..count).map(image).collect())
            }
            Data::Numbers(numbers) => {
                if numbers.len() != count * values {
                    return Err(wrong_length(numbers.len(), "numbers", count * values));
                }
                let numbers = Arc::new(numbers);
                let image = |index| Image::TensorValues(Arc::clone(&numbers), index);
                Ok((0..count).map(image).collect())
            }
            Data::Elements(_) | Data::OtherType => {
                Err(self.bad_data("they must be in the field for FP32"))
            }
            Data::Missing => Err(self.no_data()),
        }
    }

    fn check_datatype(&self, wanted: &str) -> Result<(), Status> {
        if self.tensor.datatype == wanted {
            return Ok(());
        }
        Err(status::invalid(
            "inputs[0].datatype",
            format_args!(
                "must be {wanted} for {}, got {:?}",
                self.tensor.name, self.tensor.datatype
            ),
        ))
    }

    fn bad_shape(&self, wanted: &str) -> Status {
        status::invalid(
            "inputs[0].shape",
            format_args!(
                "must be {wanted} with N from 1 for {} of {}, got {:?}",
                self.tensor.name, self.model.name, self.tensor.shape
            ),
        )
    }

    fn bad_data(&self, reason: &str) -> Status {
        status::invalid(
            "inputs[0]",
            format_args!(
                "failed to read the elements of {}: {reason}",
                self.tensor.name
            ),
        )
    }

    fn no_data(&self) -> Status {
        self.bad_data("they are missing")
    }
}

/// Splits elements that have their lengths in front.
fn split(mut rest: Bytes, count: usize) -> Result<Vec<Bytes>, String> {
    let mut elements = Vec::with_capacity(count);
    for index in 0..count {
        if rest.len() < PREFIX {
            return Err(format!(
                "element {index} of {count} must start with its length in {PREFIX} bytes, but {} bytes are left",
                rest.len()
            ));
        }
        let length = rest.get_u32_le() as usize;
        if rest.len() < length {
            return Err(format!(
                "element {index} of {count} must have {length} bytes, but {} are left; its length precedes it as {PREFIX} bytes in little-endian order",
                rest.len()
            ));
        }
        elements.push(rest.split_to(length));
    }
    if rest.is_empty() {
        return Ok(elements);
    }
    Err(format!(
        "{} bytes follow the last of {count} elements",
        rest.len()
    ))
}
