//! Headers with instructions to browsers, for all responses of the HTTP port.

use axum::response::Response;
use http::{HeaderName, HeaderValue, header};

const FIXED: [(HeaderName, &str); 3] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
];

/// Adds the headers that the response does not have.
pub(crate) async fn add_headers(mut response: Response) -> Response {
    for (name, value) in FIXED {
        response
            .headers_mut()
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    }
    response
}
