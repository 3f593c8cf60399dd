//! Detects values that no network can compute with.

use super::{DType, Error, StateDict, TensorData, text::quoted};

const VARIANCE_SUFFIX: &str = ".running_var";

/// Checks that all values are finite in 32 bits and no running variance is negative.
///
/// # Errors
/// [`Error::Values`] names the first such value with its tensor and index, and counts further
/// tensors.
pub(crate) fn check_values(state: &StateDict) -> Result<(), Error> {
    let mut bad = state.iter().filter_map(|(name, tensor)| {
        let is_variance = name.ends_with(VARIANCE_SUFFIX);
        let index = first_bad(tensor, is_variance)?;
        Some(sentence(name, tensor, index, is_variance))
    });
    let Some(first) = bad.next() else {
        return Ok(());
    };
    Err(Error::Values(match bad.count() {
        0 => first,
        more => format!("{first}, and {more} more tensors have such values"),
    }))
}

/// Row-major index of the first bad value.
fn first_bad(tensor: &TensorData, is_variance: bool) -> Option<usize> {
    let is_bad = |value: f32| !value.is_finite() || is_variance && value < 0.0;
    match tensor.dtype {
        DType::F32 => {
            let (elements, _) = tensor.data.as_chunks();
            elements
                .iter()
                .position(|bytes| is_bad(f32::from_le_bytes(*bytes)))
        }
        DType::F64 | DType::F16 | DType::BF16 => tensor.to_f32().into_iter().position(is_bad),
        DType::I64 | DType::I32 | DType::I16 | DType::I8 | DType::U8 | DType::Bool => is_variance
            .then(|| tensor.to_f32().into_iter().position(is_bad))
            .flatten(),
    }
}

fn sentence(name: &str, tensor: &TensorData, index: usize, is_variance: bool) -> String {
    let value = value(tensor, index);
    let rule = if value.is_finite() && value.abs() > f64::from(f32::MAX) {
        "it must be within the range of 32-bit floats"
    } else if is_variance {
        "a running variance must be 0 or more, and finite"
    } else {
        "it must be finite"
    };
    format!(
        "tensor {} has {value:?} at {:?}; {rule}",
        quoted(name),
        position(&tensor.shape, index)
    )
}

/// One element, exactly.
fn value(tensor: &TensorData, index: usize) -> f64 {
    let size = tensor.dtype.size();
    let bytes = &tensor.data[index * size..(index + 1) * size];
    match <[u8; 8]>::try_from(bytes) {
        Ok(wide) if tensor.dtype == DType::F64 => f64::from_le_bytes(wide),
        _ => {
            let one = TensorData {
                dtype: tensor.dtype,
                shape: Vec::new(),
                data: bytes.to_vec(),
            };
            one.to_f32().first().copied().unwrap_or_default().into()
        }
    }
}

/// The indices of an element along each dimension.
fn position(shape: &[usize], mut index: usize) -> Vec<usize> {
    let mut position = vec![0; shape.len()];
    for (place, length) in position.iter_mut().zip(shape).rev() {
        *place = index % length;
        index /= length;
    }
    position
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(dtype: DType, shape: &[usize], data: Vec<u8>) -> TensorData {
        TensorData {
            dtype,
            shape: shape.to_vec(),
            data,
        }
    }

    fn floats(shape: &[usize], values: &[f32]) -> TensorData {
        let data = values.iter().flat_map(|value| value.to_le_bytes());
        tensor(DType::F32, shape, data.collect())
    }

    fn refusal(name: &str, tensor: TensorData) -> String {
        let state = StateDict::from([(name.to_owned(), tensor)]);
        check_values(&state).unwrap_err().to_string()
    }

    #[test]
    fn a_value_that_is_not_finite_is_named_with_its_place() {
        let mut values = [0.0; 12];
        // Of shape [2, 3, 2], by hand: 1 * 6 + 2 * 2 + 1.
        values[11] = f32::NAN;
        let text = refusal("layer2.0.conv1.weight", floats(&[2, 3, 2], &values));
        assert!(
            text.contains("tensor \"layer2.0.conv1.weight\" has NaN at [1, 2, 1]"),
            "{text}"
        );
        let text = refusal("fc.bias", floats(&[1], &[f32::NEG_INFINITY]));
        assert!(text.contains("\"fc.bias\" has -inf at [0]"), "{text}");
        // Infinity in IEEE half precision and in bfloat16.
        for (dtype, bytes) in [(DType::F16, [0x00, 0x7c]), (DType::BF16, [0x80, 0x7f])] {
            let text = refusal("conv1.weight", tensor(dtype, &[1], bytes.to_vec()));
            assert!(text.contains("has inf at [0]"), "{text}");
        }
    }

    #[test]
    fn a_double_beyond_the_range_of_32_bits_is_refused_with_its_own_value() {
        let values = [3e38_f64, -1e300];
        let data = values.iter().flat_map(|value| value.to_le_bytes());
        let text = refusal("conv1.weight", tensor(DType::F64, &[2], data.collect()));
        assert!(
            text.contains("has -1e300 at [1]") && text.contains("range of 32-bit"),
            "{text}"
        );
    }

    #[test]
    fn only_a_running_variance_must_not_be_negative() {
        let negative = || floats(&[2], &[0.0, -1.0]);
        let text = refusal("bn1.running_var", negative());
        assert!(
            text.contains("\"bn1.running_var\" has -1.0 at [1]") && text.contains("0 or more"),
            "{text}"
        );
        let means = StateDict::from([("bn1.running_mean".to_owned(), negative())]);
        check_values(&means).unwrap();
    }

    #[test]
    fn further_tensors_are_counted() {
        let bad = || floats(&[1], &[f32::NAN]);
        let names = ["a", "b", "c"].map(|name| (name.to_owned(), bad()));
        let text = check_values(&StateDict::from(names))
            .unwrap_err()
            .to_string();
        assert!(
            text.contains("tensor \"a\"") && text.contains("2 more tensors"),
            "{text}"
        );
    }
}
