//! Requests and results as tensors.

use std::time::Duration;

use bytes::Bytes;
use tonic::Status;

use crate::{
    inference::{Prediction, Priority, ServedModel},
    services::status,
};

/// Encoded images, BYTES.
pub(super) const IMAGE: &str = "image";
/// Preprocessed images, FP32.
pub(super) const INPUT: &str = "input";
/// Ages in years, FP32.
pub(super) const AGE: &str = "age";
/// Lower and upper ends in years, FP32.
pub(super) const INTERVAL: &str = "interval";
/// The parameter with the level of intervals, and its name in errors.
const LEVEL: &str = "interval_level";
pub(super) const LEVEL_FIELD: &str = "parameters[interval_level]";

pub(super) const BYTES: &str = "BYTES";
pub(super) const FP32: &str = "FP32";

/// The prefix of parameters for tensors in shared memory.
const SHARED_MEMORY: &str = "shared_memory_";

/// Size of the length in front of each element of BYTES.
pub(super) const PREFIX: usize = 4;

/// An inference request over gRPC or REST.
#[derive(Debug, Default)]
pub(super) struct Call {
    pub(super) model: String,
    pub(super) version: String,
    pub(super) id: String,
    pub(super) timeout: Option<Duration>,
    pub(super) interval_level: Option<f64>,
    pub(super) priority: Priority,
    pub(super) inputs: Vec<Tensor>,
    /// Names of the requested outputs; empty for all.
    pub(super) outputs: Vec<String>,
}

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
    /// In the binary format of the protocol.
    Raw(Bytes),
    /// Byte strings.
    Elements(Vec<Bytes>),
    Numbers(Vec<f32>),
    /// In the field of another datatype.
    OtherType,
    Missing,
}

/// The result of a request.
#[derive(Debug)]
pub(super) struct Inferred {
    pub(super) model: String,
    pub(super) version: String,
    pub(super) id: String,
    pub(super) outputs: Vec<OutputTensor>,
}

#[derive(Debug, PartialEq)]
pub(super) struct OutputTensor {
    pub(super) name: &'static str,
    pub(super) shape: [usize; 2],
    pub(super) values: Vec<f32>,
    /// For intervals: the share of true ages inside.
    pub(super) confidence: Option<f64>,
}

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

    /// The number of values for each image.
    pub(super) fn width(self) -> usize {
        match self {
            Output::Age => 1,
            Output::Interval => 2,
        }
    }

    /// Creates the tensor of all images; `level` is that of the intervals.
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

/// Reads the supported parameters of a request. Each is its name and its value if that is a number.
pub(super) fn read_parameters<'a>(
    call: &mut Call,
    parameters: impl IntoIterator<Item = (&'a str, Option<f64>)>,
) -> Result<(), Status> {
    for (name, number) in parameters {
        let number_or_refuse = || {
            number
                .ok_or_else(|| status::invalid(&format!("parameters[{name}]"), "must be a number"))
        };
        match name {
            // As in Triton, 0 means no timeout.
            "timeout" => {
                let microseconds = number_or_refuse()?;
                let timeout = Duration::try_from_secs_f64(microseconds / 1e6).map_err(|_| {
                    status::invalid(
                        "parameters[timeout]",
                        format_args!("must be a number of microseconds, got {microseconds}"),
                    )
                })?;
                call.timeout = Some(timeout).filter(|timeout| !timeout.is_zero());
            }
            // As in Triton, 0 means the default and 1 is the highest.
            "priority" => {
                call.priority = match number_or_refuse()? {
                    level if level < 2.0 => Priority::Interactive,
                    _ => Priority::Batch,
                };
            }
            LEVEL => call.interval_level = Some(number_or_refuse()?),
            // Clients send parameters for other servers.
            _ => {}
        }
    }
    Ok(())
}

/// Rejects parameters that would change the location or format of a tensor's elements; `field` is
/// the tensor.
pub(super) fn check_tensor_parameters<'a>(
    field: &str,
    names: impl IntoIterator<Item = &'a str>,
) -> Result<(), Status> {
    for name in names {
        let reason = match name {
            "classification" => {
                "is not supported, because an age is a number and not one of several classes"
            }
            name if name.starts_with(SHARED_MEMORY) => {
                "is not supported; send tensors in the request"
            }
            _ => continue,
        };
        return Err(status::invalid(
            &format!("{field}.parameters[{name}]"),
            reason,
        ));
    }
    Ok(())
}

/// Reads the requested outputs; `level` is that of the intervals.
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
        let refuse =
            |description: String| status::invalid(&format!("outputs[{index}].name"), description);
        let output = match name.as_str() {
            AGE => Output::Age,
            INTERVAL if level.is_some() => Output::Interval,
            INTERVAL => {
                let reason = match &model.calibration {
                    Some(calibration) => format!(
                        "has no interval of the default level, because its training had too few validation images; set the parameter {LEVEL} to one of {}",
                        calibration.listed_levels()
                    ),
                    None => "has no interval, because its training had too few validation images"
                        .to_owned(),
                };
                return Err(refuse(format!("{} {reason}", model.name)));
            }
            _ => {
                return Err(refuse(format!(
                    "must be {AGE} or, for a version with intervals, {INTERVAL}, got {name:?} for {}",
                    model.name
                )));
            }
        };
        if outputs.contains(&output) {
            return Err(refuse(format!("{name} must not be listed twice")));
        }
        outputs.push(output);
    }
    Ok(outputs)
}
