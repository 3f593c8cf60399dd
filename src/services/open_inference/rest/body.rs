use axum::http::{HeaderMap, HeaderName};
use serde::Deserialize;
use serde_json::Value;
use tonic::Status;

use crate::services::status;

/// The size of the JSON in bytes, if tensors follow it.
pub(super) const JSON_LENGTH: HeaderName =
    HeaderName::from_static("inference-header-content-length");

pub(super) fn json_length(headers: &HeaderMap) -> Result<Option<usize>, Status> {
    let Some(value) = headers.get(JSON_LENGTH) else {
        return Ok(None);
    };
    let length = value.to_str().ok().and_then(|text| text.parse().ok());
    length.map(Some).ok_or_else(|| {
        let description = format!("must be a number of bytes, got {value:?}");
        status::invalid("Inference-Header-Content-Length", description)
    })
}

/// Counts the parameters in the body of a load, which may be empty.
pub(super) fn load_parameters(body: &[u8]) -> Result<usize, Status> {
    #[derive(Deserialize)]
    struct Request {
        #[serde(default)]
        parameters: serde_json::Map<String, Value>,
    }
    if body.is_empty() {
        return Ok(0);
    }
    let request: Request =
        serde_json::from_slice(body).map_err(|error| status::invalid("body", error))?;
    Ok(request.parameters.len())
}
