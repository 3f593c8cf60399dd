//! The bodies of the REST form: JSON, optionally followed by tensors as bytes (Triton's binary
//! tensor data).

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tonic::Status;

use crate::services::status;

use super::{
    elements::Elements,
    tensors::{self, BYTES, Call, Data, FP32, IMAGE, Inferred, OutputTensor, PREFIX, Tensor},
};

/// The parameter with the size of a tensor's bytes after the JSON.
const SIZE: &str = "binary_data_size";

/// An example for error messages.
const EXAMPLE: &str = r#"{"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": ["<base64 of an image file>"]}]}"#;

/// The outputs that a client requests as bytes.
#[derive(Debug, Default)]
pub(super) struct Form {
    /// The default for outputs that are not listed.
    all: bool,
    named: Vec<(String, bool)>,
}

impl Form {
    fn is_binary(&self, output: &str) -> bool {
        let named = self.named.iter().find(|(name, _)| name == output);
        named.map_or(self.all, |(_, binary)| *binary)
    }
}

#[derive(Debug)]
pub(super) struct Written {
    /// JSON, followed by bytes if `json_bytes` is set.
    pub(super) body: Vec<u8>,
    /// Length of the JSON if bytes follow it.
    pub(super) json_bytes: Option<usize>,
}

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
pub(super) fn read(
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

pub(super) fn write(inferred: &Inferred, form: &Form) -> serde_json::Result<Written> {
    let is_binary = |output: &OutputTensor| form.is_binary(output.name);
    let body = Response {
        model_name: &inferred.model,
        model_version: &inferred.version,
        id: &inferred.id,
        outputs: inferred
            .outputs
            .iter()
            .map(|output| Output::new(output, is_binary(output)))
            .collect(),
    };
    let mut body = serde_json::to_vec(&body)?;
    let json_bytes = body.len();
    let mut binary = inferred
        .outputs
        .iter()
        .filter(|output| is_binary(output))
        .peekable();
    let has_binary = binary.peek().is_some();
    let values = binary.flat_map(|output| &output.values);
    body.extend(values.flat_map(|value| value.to_le_bytes()));
    Ok(Written {
        body,
        json_bytes: has_binary.then_some(json_bytes),
    })
}

#[derive(Serialize)]
struct Response<'a> {
    model_name: &'a str,
    model_version: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    id: &'a str,
    outputs: Vec<Output<'a>>,
}

#[derive(Serialize)]
struct Output<'a> {
    name: &'a str,
    datatype: &'static str,
    shape: [usize; 2],
    #[serde(skip_serializing_if = "Map::is_empty")]
    parameters: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a [f32]>,
}

impl<'a> Output<'a> {
    fn new(tensor: &'a OutputTensor, binary: bool) -> Self {
        let mut parameters = Map::new();
        if let Some(confidence) = tensor.confidence {
            parameters.insert("confidence".to_owned(), json!(confidence));
        }
        if binary {
            let size = size_of_val(tensor.values.as_slice());
            parameters.insert(SIZE.to_owned(), json!(size));
        }
        Output {
            name: tensor.name,
            datatype: FP32,
            shape: tensor.shape,
            parameters,
            data: (!binary).then_some(&tensor.values),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_json(request: Value) -> Result<(Call, Form), Status> {
        let body = serde_json::to_vec(&request).unwrap();
        read("age".to_owned(), String::new(), body.into(), None)
    }

    #[test]
    fn nested_numbers_are_read_row_by_row() {
        let request = json!({"inputs": [
            {"name": "input", "datatype": "FP32", "shape": [1, 3, 1, 2], "data": [[[[1, 2.5]], [[-3, 4]], [[5, 6]]]]}]});
        let (call, _) = read_json(request).unwrap();
        let Data::Numbers(numbers) = &call.inputs[0].data else {
            panic!("{call:?}");
        };
        assert_eq!(numbers, &[1.0, 2.5, -3.0, 4.0, 5.0, 6.0]);
    }

    #[test]
    fn texts_are_images_in_base64() {
        let input = |data: Value| json!({"inputs": [{"name": "image", "datatype": "BYTES", "shape": [2], "data": data}]});
        let (call, _) = read_json(input(json!(["aGVsbG8=", ""]))).unwrap();
        let Data::Elements(images) = &call.inputs[0].data else {
            panic!("{call:?}");
        };
        assert_eq!(images, &[&b"hello"[..], &b""[..]]);
        let status = read_json(input(json!(["aGVsbG8=", "no!"]))).unwrap_err();
        assert!(
            status
                .message()
                .starts_with("inputs[0].data[1]: must be base64"),
            "{status:?}"
        );
    }

    #[test]
    fn a_body_without_json_is_one_image_with_or_without_its_length() {
        let of = |body: &'static [u8]| {
            let body = Bytes::from_static(body);
            let read = read("age".to_owned(), "2".to_owned(), body, Some(0));
            read.map(|(mut call, _)| (call.inputs.pop().unwrap(), call.version))
        };
        for body in [&b"hello"[..], b"\x05\0\0\0hello"] {
            let (tensor, version) = of(body).unwrap();
            let Data::Elements(images) = tensor.data else {
                panic!("{tensor:?}");
            };
            assert_eq!(images, [&b"hello"[..]]);
            assert_eq!((tensor.name.as_str(), version.as_str()), ("image", "2"));
        }
        // A body of a few bytes, and a length that is not that of the rest, are the image.
        let (tensor, _) = of(b"abc").unwrap();
        assert!(matches!(&tensor.data, Data::Elements(images) if images[0] == b"abc"[..]));
        let (tensor, _) = of(b"\x04\0\0\0hello").unwrap();
        assert!(matches!(&tensor.data, Data::Elements(images) if images[0].len() == 9));
        let empty = of(b"").unwrap_err();
        assert!(
            empty.message().contains("must be the JSON"),
            "{}",
            empty.message()
        );
    }

    #[test]
    fn invalid_requests_are_rejected_with_an_example() {
        for body in [
            &b"\xff\xd8\xff\xe0"[..],
            br#"{"instances": [{"b64": "AA=="}]}"#,
        ] {
            let body = Bytes::from_static(body);
            let refused = read(String::new(), String::new(), body, None).unwrap_err();
            let message = refused.message();
            assert!(
                message.contains(EXAMPLE) && message.contains("Inference-Header-Content-Length: 0"),
                "{message}"
            );
        }
        let example = read(String::new(), String::new(), EXAMPLE.into(), None).unwrap_err();
        // The only error is its image, which is a sentence.
        assert!(
            example
                .message()
                .starts_with("inputs[0].data[0]: must be base64"),
            "{}",
            example.message()
        );
    }

    #[test]
    fn bytes_after_the_json_belong_to_the_inputs_in_order() {
        let of = |sizes: &[u64], rest: &[u8]| {
            let inputs: Vec<Value> = sizes
                .iter()
                .map(|size| json!({"name": "input", "datatype": "FP32", "shape": [], "parameters": {"binary_data_size": size}}))
                .collect();
            let text = json!({ "inputs": inputs }).to_string();
            let body = [text.as_bytes(), rest].concat();
            read(String::new(), String::new(), body.into(), Some(text.len()))
        };
        let (call, _) = of(&[2, 3], b"abcde").unwrap();
        let raw = |tensor: &Tensor| {
            let Data::Raw(raw) = &tensor.data else {
                panic!("{tensor:?}");
            };
            raw.clone()
        };
        let found: Vec<Bytes> = call.inputs.iter().map(raw).collect();
        assert_eq!(found, [&b"ab"[..], &b"cde"[..]]);
        assert!(
            of(&[2], b"abc")
                .unwrap_err()
                .message()
                .contains("1 bytes after the JSON")
        );
        let short = of(&[2, 3], b"abcd").unwrap_err();
        assert!(
            short.message().contains(
                "inputs[1].parameters[binary_data_size]: must be at most the 2 bytes that follow"
            ),
            "{short:?}"
        );
    }

    #[test]
    fn responses_have_bytes_for_the_outputs_that_request_them() {
        let inferred = Inferred {
            model: "age".to_owned(),
            version: "3".to_owned(),
            id: "7".to_owned(),
            outputs: vec![
                OutputTensor {
                    name: "age",
                    shape: [1, 1],
                    values: vec![1.5],
                    confidence: None,
                },
                OutputTensor {
                    name: "interval",
                    shape: [1, 2],
                    values: vec![0.1, 2.0],
                    confidence: Some(0.9),
                },
            ],
        };
        let form = Form {
            all: true,
            named: vec![("interval".to_owned(), false)],
        };
        let written = write(&inferred, &form).unwrap();
        let (text, rest) = written.body.split_at(written.json_bytes.unwrap());
        let expected = json!({
            "model_name": "age", "model_version": "3", "id": "7",
            "outputs": [
                {"name": "age", "datatype": "FP32", "shape": [1, 1], "parameters": {"binary_data_size": 4}},
                {"name": "interval", "datatype": "FP32", "shape": [1, 2], "parameters": {"confidence": 0.9}, "data": [0.1, 2.0]},
            ],
        });
        assert_eq!(serde_json::from_slice::<Value>(text).unwrap(), expected);
        // 1.5 is 0x3fc00000.
        assert_eq!(rest, [0x00, 0x00, 0xc0, 0x3f]);
        assert_eq!(write(&inferred, &Form::default()).unwrap().json_bytes, None);
    }
}
