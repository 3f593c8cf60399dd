//! Writes a response in the form that the request asks for.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::super::tensors::{FP32, Inferred, OutputTensor};

/// The parameter with the size of a tensor's bytes after the JSON.
pub(super) const SIZE: &str = "binary_data_size";

/// The outputs that a client requests as bytes.
#[derive(Debug, Default)]
pub(in crate::services::open_inference) struct Form {
    /// The default for outputs that are not listed.
    pub(super) all: bool,
    pub(super) named: Vec<(String, bool)>,
}

impl Form {
    fn is_binary(&self, output: &str) -> bool {
        let named = self.named.iter().find(|(name, _)| name == output);
        named.map_or(self.all, |(_, binary)| *binary)
    }
}

#[derive(Debug)]
pub(in crate::services::open_inference) struct Written {
    /// JSON, followed by bytes if `json_bytes` is set.
    pub(in crate::services::open_inference) body: Vec<u8>,
    /// Length of the JSON if bytes follow it.
    pub(in crate::services::open_inference) json_bytes: Option<usize>,
}

pub(in crate::services::open_inference) fn write(
    inferred: &Inferred,
    form: &Form,
) -> serde_json::Result<Written> {
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
