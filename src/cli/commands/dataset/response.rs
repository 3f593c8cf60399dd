//! Responses of the upload protocol, and failures with the decision whether another attempt may
//! succeed.

use serde_json::Value;
use tonic::Status;
use ureq::{Body, http::Response};

use crate::cli::{client::tls_failure, error::Error};

/// A failed request.
pub(super) enum Failure {
    Retryable(Loss),
    Permanent(Error),
}

/// A failure that another attempt may not have.
pub(super) struct Loss {
    pub(super) cause: String,
    /// True if the server responded, but cannot accept the request now.
    pub(super) has_response: bool,
}

/// A successful response.
pub(super) fn checked(
    response: Result<Response<Body>, ureq::Error>,
) -> Result<Response<Body>, Failure> {
    let mut response = response.map_err(lost)?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let body = response.body_mut().read_to_string().unwrap_or_default();
    let body: Value = serde_json::from_str(&body).unwrap_or_default();
    let cause = match body["error"].as_str() {
        Some(error) => error.to_owned(),
        None => format!("the server returned {status}"),
    };
    // Another request still holds the upload, the server is busy or shutting down, or it has
    // another offset.
    let is_retryable = matches!(status.as_u16(), 408 | 409 | 423 | 429) || status.is_server_error();
    Err(match status.as_u16() {
        _ if is_retryable => Failure::Retryable(Loss {
            cause,
            has_response: true,
        }),
        401 => Failure::Permanent(Error::Refused(Box::new(Status::unauthenticated(cause)))),
        403 => Failure::Permanent(Error::Refused(Box::new(Status::permission_denied(cause)))),
        _ => Failure::Permanent(refused(cause)),
    })
}

pub(super) fn number(response: &Response<Body>, header: &str) -> Option<u64> {
    let value = response.headers().get(header)?.to_str().ok()?;
    value.parse().ok()
}

/// The error of an upload that does not exist.
pub(super) fn missing(id: &str) -> Error {
    refused(format!(
        "no upload `{id}`; `visage dataset uploads` lists them"
    ))
}

pub(super) fn refused(message: String) -> Error {
    Error::Refused(Box::new(Status::unknown(message)))
}

pub(super) fn lost(error: ureq::Error) -> Failure {
    let server = "the HTTP port";
    if let Some(cause) = tls_failure::explain(server, &error) {
        let server = server.to_owned();
        return Failure::Permanent(Error::Connection { server, cause });
    }
    Failure::Retryable(Loss {
        cause: error.to_string(),
        has_response: false,
    })
}

pub(super) fn invalid(text: &str) -> Failure {
    Failure::Permanent(Error::Contract(text.to_owned()))
}
