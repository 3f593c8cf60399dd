//! From the tensors of a request to images, and from answers to tensors.

use std::{sync::Arc, time::Duration};

use bytes::{Buf, Bytes};
use tonic::Status;

use crate::{
    inference::{Image, Prediction, Priority, ServedModel},
    services::status,
};

/// Encoded images, BYTES.
pub(super) const IMAGE: &str = "image";
/// Prepared images, FP32.
pub(super) const INPUT: &str = "input";
/// Ages in years, FP32.
pub(super) const AGE: &str = "age";
/// Lower and upper ends in years, FP32.
pub(super) const INTERVAL: &str = "interval";
/// The parameter with the level of the intervals, and where a request has it.
const LEVEL: &str = "interval_level";
pub(super) const LEVEL_FIELD: &str = "parameters[interval_level]";

pub(super) const BYTES: &str = "BYTES";
pub(super) const FP32: &str = "FP32";

/// How all parameters begin by which a client would hand over its tensors in shared memory.
const SHARED_MEMORY: &str = "shared_memory_";

/// Bytes of the length in front of each element of BYTES.
pub(super) const PREFIX: usize = 4;

/// A request of either form.
#[derive(Debug, Default)]
pub(super) struct Call {
    pub(super) model: String,
    pub(super) version: String,
    pub(super) id: String,
    /// After which the answer is worth nothing.
    pub(super) timeout: Option<Duration>,
    pub(super) interval_level: Option<f64>,
    pub(super) priority: Priority,
    pub(super) inputs: Vec<Tensor>,
    /// Names of the wanted outputs; empty for all.
    pub(super) outputs: Vec<String>,
}

/// A tensor of a request.
#[derive(Debug)]
pub(super) struct Tensor {
    pub(super) name: String,
    pub(super) datatype: String,
    pub(super) shape: Vec<i64>,
    pub(super) data: Data,
}

/// The elements of a tensor, row by row.
#[derive(Debug)]
pub(super) enum Data {
    /// As bytes of the wire.
    Raw(Bytes),
    /// One by one.
    Elements(Vec<Bytes>),
    /// As numbers.
    Numbers(Vec<f32>),
    /// In a list for another datatype.
    OfAnotherType,
    /// Not at all.
    Missing,
}

/// What a request gave.
#[derive(Debug)]
pub(super) struct Inferred {
    pub(super) model: String,
    pub(super) version: String,
    pub(super) id: String,
    pub(super) outputs: Vec<OutputTensor>,
}

/// A tensor of an answer.
#[derive(Debug, PartialEq)]
pub(super) struct OutputTensor {
    pub(super) name: &'static str,
    pub(super) shape: [usize; 2],
    pub(super) values: Vec<f32>,
    /// Of an interval: the share of true ages inside.
    pub(super) confidence: Option<f64>,
}

/// An output that a version has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Output {
    Age,
    Interval,
}

impl Output {
    pub(super) const ALL: [Output; 2] = [Output::Age, Output::Interval];

    pub(super) fn name(self) -> &'static str {
        match self {
            Output::Age => AGE,
            Output::Interval => INTERVAL,
        }
    }

    /// Numbers for each image.
    pub(super) fn width(self) -> usize {
        match self {
            Output::Age => 1,
            Output::Interval => 2,
        }
    }

    /// The output of all images; `level` is that of the intervals.
    pub(super) fn tensor(self, answers: &[Prediction], level: Option<f64>) -> OutputTensor {
        let values = match self {
            Output::Age => answers.iter().map(|answer| answer.age as f32).collect(),
            Output::Interval => answers
                .iter()
                .filter_map(|answer| answer.interval)
                .flat_map(|interval| [interval.lower as f32, interval.upper as f32])
                .collect(),
        };
        OutputTensor {
            name: self.name(),
            shape: [answers.len(), self.width()],
            values,
            confidence: match self {
                Output::Age => None,
                Output::Interval => level,
            },
        }
    }
}

/// Reads the parameters of a request that mean something here; each is its name and, when it is a number, its value.
///
/// # Errors
/// INVALID_ARGUMENT.
pub(super) fn read_parameters<'a>(
    call: &mut Call,
    parameters: impl IntoIterator<Item = (&'a str, Option<f64>)>,
) -> Result<(), Status> {
    for (name, number) in parameters {
        let number_or_refuse = || {
            number.ok_or_else(|| status::invalid(&format!("parameters[{name}]"), "it is no number"))
        };
        match name {
            // As in Triton, 0 is none.
            "timeout" => {
                let microseconds = number_or_refuse()?;
                let timeout = Duration::try_from_secs_f64(microseconds / 1e6).map_err(|_| {
                    status::invalid(
                        "parameters[timeout]",
                        &format!("{microseconds} is no time in microseconds from now"),
                    )
                })?;
                call.timeout = Some(timeout).filter(|timeout| !timeout.is_zero());
            }
            // As in Triton, 0 is none and 1 the highest.
            "priority" => {
                call.priority = match number_or_refuse()? {
                    level if level < 2.0 => Priority::Interactive,
                    _ => Priority::Batch,
                };
            }
            LEVEL => call.interval_level = Some(number_or_refuse()?),
            // Clients send parameters that other servers understand.
            _ => {}
        }
    }
    Ok(())
}

/// Refuses parameters of a tensor that would change where or how its elements are; `field` is the tensor.
///
/// # Errors
/// INVALID_ARGUMENT.
pub(super) fn check_tensor_parameters<'a>(
    field: &str,
    names: impl IntoIterator<Item = &'a str>,
) -> Result<(), Status> {
    for name in names {
        let why = match name {
            "classification" => "an age is a number and not one of several classes",
            name if name.starts_with(SHARED_MEMORY) => {
                "shared memory is not supported; tensors travel in the messages"
            }
            _ => continue,
        };
        return Err(status::invalid(&format!("{field}.parameters[{name}]"), why));
    }
    Ok(())
}

/// The outputs that a request wants, `level` being that of the intervals.
///
/// # Errors
/// INVALID_ARGUMENT for one that the version does not have, or that is named twice.
pub(super) fn outputs(
    names: Vec<String>,
    model: &ServedModel,
    level: Option<f64>,
) -> Result<Vec<Output>, Status> {
    if names.is_empty() {
        let given = |output: &Output| *output != Output::Interval || level.is_some();
        return Ok(Output::ALL.into_iter().filter(given).collect());
    }
    let mut outputs = Vec::with_capacity(Output::ALL.len());
    for (index, name) in names.iter().enumerate() {
        let refuse = |why: String| status::invalid(&format!("outputs[{index}].name"), &why);
        let output = match name.as_str() {
            AGE => Output::Age,
            INTERVAL if level.is_some() => Output::Interval,
            INTERVAL => {
                let why = match &model.calibration {
                    Some(calibration) => format!(
                        "has no interval of the usual level, for its training had too few validation images; ask for one of {} by the parameter {LEVEL}",
                        calibration.listed_levels()
                    ),
                    None => {
                        "has no interval, for its training had too few validation images".to_owned()
                    }
                };
                return Err(refuse(format!("{} {why}", model.name)));
            }
            _ => {
                return Err(refuse(format!(
                    "{name:?} is no output of {}; it has {AGE} and, when it is calibrated, {INTERVAL}",
                    model.name
                )));
            }
        };
        if outputs.contains(&output) {
            return Err(refuse(format!("{name} is asked for twice")));
        }
        outputs.push(output);
    }
    Ok(outputs)
}

/// The images of a request. `check_count` is asked before anything is made for each of them.
///
/// # Errors
/// INVALID_ARGUMENT.
pub(super) fn images(
    mut inputs: Vec<Tensor>,
    model: &ServedModel,
    check_count: impl Fn(&str, usize) -> Result<(), Status>,
) -> Result<Vec<Image>, Status> {
    for (index, tensor) in inputs.iter().enumerate() {
        if tensor.name != IMAGE && tensor.name != INPUT {
            return Err(status::invalid(
                &format!("inputs[{index}].name"),
                &format!(
                    "{:?} is no input of {}; give {IMAGE} ({BYTES}) or {INPUT} ({FP32})",
                    tensor.name, model.name
                ),
            ));
        }
    }
    let count = inputs.len();
    let mut tensor = inputs.pop().filter(|_| count == 1).ok_or_else(|| {
        status::invalid(
            "inputs",
            &format!(
                "there are {count}; give exactly one of {IMAGE} ({BYTES}) and {INPUT} ({FP32})"
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
        // Also where the shape is that of the bytes of one image.
        if let Data::Elements(elements) = &data
            && count != Some(elements.len())
        {
            return Err(self.bad_data(&format!(
                "{0} were given and the shape is {1:?}; the shape of {0} images is [{0}] or [{0},1]",
                elements.len(),
                self.tensor.shape
            )));
        }
        let count = count.ok_or_else(|| self.bad_shape("[N] or [N,1]"))?;
        (self.check_count)("inputs[0].shape", count)?;
        let elements = match data {
            Data::Raw(raw) => split(raw, count).map_err(|why| self.bad_data(&why))?,
            Data::Elements(elements) => elements,
            Data::Numbers(_) | Data::OfAnotherType => {
                return Err(self.bad_data("they are not in the list for BYTES"));
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
                "{found} {unit} were given and the shape {:?} has {wanted}",
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
            Data::Elements(_) | Data::OfAnotherType => {
                Err(self.bad_data("they are not in the list for FP32"))
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
            &format!(
                "{:?} is not the datatype of {}, which is {wanted}",
                self.tensor.datatype, self.tensor.name
            ),
        ))
    }

    fn bad_shape(&self, wanted: &str) -> Status {
        status::invalid(
            "inputs[0].shape",
            &format!(
                "{:?} is not of the form {wanted} that {} of {} has, with N from 1",
                self.tensor.shape, self.tensor.name, self.model.name
            ),
        )
    }

    fn bad_data(&self, why: &str) -> Status {
        status::invalid(
            "inputs[0]",
            &format!("the elements of {} cannot be read: {why}", self.tensor.name),
        )
    }

    fn no_data(&self) -> Status {
        self.bad_data("there are none")
    }
}

/// Takes apart elements that have their lengths in front of them.
fn split(mut rest: Bytes, count: usize) -> Result<Vec<Bytes>, String> {
    let mut elements = Vec::with_capacity(count);
    for index in 0..count {
        if rest.len() < PREFIX {
            return Err(format!(
                "element {index} of {count} should begin with its length in {PREFIX} bytes, and {} bytes are left",
                rest.len()
            ));
        }
        let length = rest.get_u32_le() as usize;
        if rest.len() < length {
            return Err(format!(
                "element {index} of {count} should have {length} bytes, and {} are left; its length goes in front of it in {PREFIX} bytes, the lowest first",
                rest.len()
            ));
        }
        elements.push(rest.split_to(length));
    }
    if rest.is_empty() {
        return Ok(elements);
    }
    Err(format!(
        "{} bytes are left after {count} elements",
        rest.len()
    ))
}
