//! Reads a request.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value};
use tonic::Status;

use super::{
    super::{
        elements::Elements,
        tensors::{self, BYTES, Call, Data, IMAGE, PREFIX, Tensor},
    },
    response::{Form, SIZE},
};
use crate::services::status;

/// An example for error messages.
pub(super) const EXAMPLE: &str = r#"{"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": ["<base64 of an image file>"]}]}"#;

#[derive(Deserialize)]
struct Request {
    #[serde(default)]
    id: String,
    #[serde(default)]
    parameters: Map<String, Value>,
    inputs: Vec<Input>,
    #[serde(default)]
    outputs: Vec<RequestedOutput>,
}

#[derive(Deserialize)]
struct Input {
    name: String,
    datatype: String,
    shape: Vec<i64>,
    #[serde(default)]
    parameters: Map<String, Value>,
    data: Option<Elements>,
}

#[derive(Deserialize)]
struct RequestedOutput {
    name: String,
    #[serde(default)]
    parameters: Map<String, Value>,
}

/// Reads a request whose first `json_bytes` bytes are JSON; `None` means all of them.
pub(in crate::services::open_inference) fn read(
    model: String,
    version: String,
    mut body: Bytes,
    json_bytes: Option<usize>,
) -> Result<(Call, Form), Status> {
    let whole = body.len();
    let json_bytes = json_bytes.unwrap_or(whole);
    if json_bytes > whole {
        return Err(status::invalid(
            "Inference-Header-Content-Length",
            format_args!("must be at most the {whole} bytes of the body, got {json_bytes}"),
        ));
    }
    if json_bytes == 0 && !body.is_empty() {
        return Ok((raw(model, version, body), Form::default()));
    }
    let text = body.split_to(json_bytes);
    let request: Request = serde_json::from_slice(&text).map_err(|error| {
        status::invalid(
            "body",
            format_args!(
                "must be the JSON of an inference request: {error}; send {EXAMPLE}, or only an image file with the header \
                 Inference-Header-Content-Length: 0"
            ),
        )
    })?;
    let mut call = Call {
        model,
        version,
        id: request.id,
        ..Default::default()
    };
    let parameters = request.parameters.iter();
    tensors::read_parameters(
        &mut call,
        parameters.map(|(name, value)| (name.as_str(), value.as_f64())),
    )?;
    for (index, input) in request.inputs.into_iter().enumerate() {
        let field = format!("inputs[{index}]");
        tensors::check_tensor_parameters(&field, input.parameters.keys().map(String::as_str))?;
        call.inputs.push(tensor(&field, input, &mut body)?);
    }
    if !body.is_empty() {
        return Err(status::invalid(
            "body",
            format_args!(
                "{} bytes after the JSON belong to no input; set {SIZE} of each input to the size of its data",
                body.len()
            ),
        ));
    }
    let is_true = |value: Option<&Value>| value.and_then(Value::as_bool);
    let mut form = Form {
        all: is_true(request.parameters.get("binary_data_output")).unwrap_or_default(),
        named: Vec::new(),
    };
    for (index, output) in request.outputs.into_iter().enumerate() {
        let names = output.parameters.keys().map(String::as_str);
        tensors::check_tensor_parameters(&format!("outputs[{index}]"), names)?;
        if let Some(binary) = is_true(output.parameters.get("binary_data")) {
            form.named.push((output.name.clone(), binary));
        }
        call.outputs.push(output.name);
    }
    Ok((call, form))
}

/// A request without JSON, whose body is one image (Triton's raw binary request); some clients put
/// its length in front, as in a tensor.
fn raw(model: String, version: String, mut body: Bytes) -> Call {
    if let Some((length, rest)) = body.split_first_chunk::<PREFIX>()
        && u32::from_le_bytes(*length) as usize == rest.len()
    {
        body = body.split_off(PREFIX);
    }
    let image = Tensor {
        name: IMAGE.to_owned(),
        datatype: BYTES.to_owned(),
        shape: vec![1],
        data: Data::Elements(vec![body]),
    };
    Call {
        model,
        version,
        inputs: vec![image],
        ..Default::default()
    }
}

/// Reads a tensor; its bytes, if any, are the next ones after the JSON.
fn tensor(field: &str, input: Input, rest: &mut Bytes) -> Result<Tensor, Status> {
    let data = match (input.parameters.get(SIZE), input.data) {
        (Some(_), Some(_)) => {
            return Err(status::invalid(
                &format!("{field}.data"),
                format_args!("must be missing if {SIZE} is set"),
            ));
        }
        (Some(size), None) => {
            let taken = size.as_u64().and_then(|size| usize::try_from(size).ok());
            let taken = taken.filter(|size| *size <= rest.len()).ok_or_else(|| {
                status::invalid(
                    &format!("{field}.parameters[{SIZE}]"),
                    format_args!(
                        "must be at most the {} bytes that follow the JSON, got {size}; Inference-Header-Content-Length is the size of the JSON",
                        rest.len()
                    ),
                )
            })?;
            Data::Raw(rest.split_to(taken))
        }
        (None, Some(elements)) => elements.into_data(field, &input.datatype)?,
        (None, None) => Data::Missing,
    };
    Ok(Tensor {
        name: input.name,
        datatype: input.datatype,
        shape: input.shape,
        data,
    })
}
