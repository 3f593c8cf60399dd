//! Responses to requests without access.

use axum::{
    extract::Request,
    response::{IntoResponse as _, Response},
};
use http::{
    HeaderValue, StatusCode,
    header::{CONTENT_TYPE, WWW_AUTHENTICATE},
};
use tonic::Status;

use crate::{
    access::{Refusal, Role},
    server::layers::{grpc_response, is_grpc},
    services::status,
};

/// The form of the response that the client reads.
#[derive(Debug, Clone)]
pub(super) enum Form {
    /// gRPC or gRPC-Web, with its content type.
    Grpc(HeaderValue),
    Http,
}

impl Form {
    pub(super) fn of(request: &Request) -> Self {
        match request.headers().get(CONTENT_TYPE) {
            Some(found) if is_grpc(found) => Self::Grpc(found.clone()),
            _ => Self::Http,
        }
    }
}

pub(super) fn unauthenticated(refusal: Refusal, form: &Form) -> Response {
    let refused = status::unauthenticated(refusal);
    let mut response = respond(&refused, form, StatusCode::UNAUTHORIZED);
    let scheme = HeaderValue::from_static("Bearer");
    response.headers_mut().insert(WWW_AUTHENTICATE, scheme);
    response
}

pub(super) fn role_required(roles: &[Role], form: &Form) -> Response {
    respond(
        &status::role_required(roles, "this call"),
        form,
        StatusCode::FORBIDDEN,
    )
}

/// A change that the audit log cannot record.
pub(super) fn failed(form: &Form) -> Response {
    respond(&status::panicked(), form, StatusCode::INTERNAL_SERVER_ERROR)
}

/// Too many refused requests of the client.
pub(super) fn limited(refused: &Status, form: &Form) -> Response {
    respond(refused, form, StatusCode::TOO_MANY_REQUESTS)
}

fn respond(refused: &Status, form: &Form, code: StatusCode) -> Response {
    let grpc = match form {
        Form::Grpc(content_type) => grpc_response(refused, Some(content_type)),
        Form::Http => None,
    };
    grpc.unwrap_or_else(|| {
        let body = serde_json::json!({ "error": refused.message() }).to_string();
        let headers = [(CONTENT_TYPE, "application/json")];
        (code, headers, body + "\n").into_response()
    })
}
