//! Headers with instructions to browsers, for all responses of the HTTP port.

use axum::{extract::Request, middleware::Next, response::Response};
use http::{HeaderName, HeaderValue, header};

use crate::server::network::ConnectionState;

const FIXED: [(HeaderName, &str); 3] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
];
/// One year.
const TRANSPORT_SECURITY: HeaderValue = HeaderValue::from_static("max-age=31536000");

/// Adds the headers that the response does not have.
pub(crate) async fn add_headers(request: Request, next: Next) -> Response {
    let requires_tls = is_tls(&request) && !is_localhost(&request);
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in FIXED {
        headers
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    }
    if requires_tls {
        headers
            .entry(header::STRICT_TRANSPORT_SECURITY)
            .or_insert(TRANSPORT_SECURITY);
    }
    response
}

fn is_tls(request: &Request) -> bool {
    let connection = request.extensions().get::<ConnectionState>();
    connection.is_some_and(|connection| connection.is_tls)
}

/// A browser would apply the header to all ports of `localhost`, which other programs serve
/// without TLS.
fn is_localhost(request: &Request) -> bool {
    let host = request.headers().get(header::HOST);
    let host = host.and_then(|host| host.to_str().ok()).unwrap_or_default();
    host == "localhost" || host.starts_with("localhost:")
}
