use axum::response::Response;
use http::{HeaderValue, header::CONTENT_TYPE};
use tonic::Status;

/// The response to a refused gRPC or gRPC-Web request; `None` for other requests, according to
/// their content type.
pub(crate) fn grpc_response(
    refused: &Status,
    content_type: Option<&HeaderValue>,
) -> Option<Response> {
    let content_type = content_type.filter(|found| is_grpc(found))?;
    let mut response: Response = refused.clone().into_http();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, content_type.clone());
    Some(response)
}

pub(crate) fn is_grpc(content_type: &HeaderValue) -> bool {
    content_type.as_bytes().starts_with(b"application/grpc")
}
