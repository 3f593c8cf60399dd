//! Reads requests as the services do, without a server, for fuzzing.

use bytes::Bytes;
use prost::Message as _;
use tonic::Status;

use crate::{
    imaging::InputSpec, inference::ServedModel, model::checkpoint::LabelScale,
    proto::open_inference::ModelInferRequest, services::status,
};

use super::{grpc, images, json, tensors};

/// A small input size, so that inputs of a few bytes contain images.
const SIDE: u32 = 32;

/// The format of a request.
#[derive(Debug, Clone, Copy)]
pub enum Form {
    Grpc,
    Json,
    /// A number of bytes of JSON, followed by tensors.
    JsonAndTensors(usize),
}

/// Returns the number of images in a request.
pub fn images(form: Form, body: &[u8], most: usize) -> Result<usize, Status> {
    let read = |json_bytes| {
        let body = Bytes::copy_from_slice(body);
        json::read("age".to_owned(), String::new(), body, json_bytes).map(|(call, _)| call)
    };
    let call = match form {
        Form::Grpc => {
            let message = ModelInferRequest::decode(body);
            grpc::call(message.map_err(|error| status::invalid("body", error))?)?
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
    images::images(call.inputs, &model, check).map(|images| images.len())
}
