use axum::{
    extract::Request,
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use http::{HeaderValue, Method, StatusCode, header::CONTENT_TYPE};
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

/// The middleware of the gRPC methods: refuses requests with another content type, which a form of
/// any page could send.
pub(crate) async fn require_grpc(request: Request, next: Next) -> Response {
    let content_type = request.headers().get(CONTENT_TYPE);
    if request.method() == Method::POST && !content_type.is_some_and(is_grpc) {
        let message =
            "gRPC methods require the content type application/grpc or application/grpc-web\n";
        return (StatusCode::UNSUPPORTED_MEDIA_TYPE, message).into_response();
    }
    next.run(request).await
}

pub(crate) fn is_grpc(content_type: &HeaderValue) -> bool {
    content_type.as_bytes().starts_with(b"application/grpc")
}
