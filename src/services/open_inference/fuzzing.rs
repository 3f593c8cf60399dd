//! The reading of requests, for fuzzing: as the services do it, without a server.

use bytes::Bytes;
use prost::Message as _;
use tonic::Status;

use crate::{
    imaging::InputSpec, inference::ServedModel, model::checkpoint::LabelScale,
    proto::open_inference::ModelInferRequest, services::status,
};

use super::{grpc, json, tensors};

/// Side of the images that the network reads, so small that a few bytes are some.
const SIDE: u32 = 32;

/// How a request is written.
#[derive(Debug, Clone, Copy)]
pub enum Form {
    /// As a message of gRPC.
    Grpc,
    /// As JSON alone.
    Json,
    /// So many bytes of JSON, and tensors behind it.
    JsonAndTensors(usize),
}

/// Reads a request and returns how many images it has.
///
/// # Errors
/// Those that a client gets.
pub fn images(form: Form, body: &[u8], most: usize) -> Result<usize, Status> {
    let read = |json_bytes| {
        let body = Bytes::copy_from_slice(body);
        json::read("age".to_owned(), String::new(), body, json_bytes).map(|(call, _)| call)
    };
    let call = match form {
        Form::Grpc => {
            let message = ModelInferRequest::decode(body);
            grpc::call(message.map_err(|error| status::invalid("body", &error.to_string()))?)?
        }
        Form::Json => read(None)?,
        Form::JsonAndTensors(json_bytes) => read(Some(json_bytes))?,
    };
    let model = ServedModel {
        name: "models/age/versions/1".to_owned(),
        weights: "model.safetensors".into(),
        sha256: String::new(),
        input: InputSpec {
            size: SIDE,
            ..InputSpec::default()
        },
        label: LabelScale {
            scale: 1.0,
            offset: 0.0,
        },
        calibration: None,
        mean_training_age: None,
    };
    tensors::outputs(call.outputs, &model, None)?;
    let check = |field: &str, count: usize| match count <= most {
        true => Ok(()),
        false => Err(status::invalid(field, "too many")),
    };
    tensors::images(call.inputs, &model, check).map(|images| images.len())
}
