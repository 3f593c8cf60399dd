use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use crate::services::uploads;

/// How long browsers may cache the response of a preflight request.
const MAX_AGE: Duration = Duration::from_secs(3600);

/// Response headers that pages of other origins may read, in addition to those of uploads.
const EXPOSED: [&str; 4] = [
    "grpc-status",
    "grpc-message",
    "grpc-status-details-bin",
    "inference-header-content-length",
];

/// Allows pages of these origins to call; `*` is any origin, an empty list none.
pub(crate) fn cors(origins: &[String]) -> CorsLayer {
    let allowed = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(
            origins
                .iter()
                .filter_map(|origin| HeaderValue::from_str(origin).ok()),
        )
    };
    let exposed = EXPOSED.into_iter().chain(uploads::EXPOSED);
    CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([[Method::GET, Method::POST].as_slice(), &uploads::METHODS].concat())
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(exposed.map(HeaderName::from_static).collect::<Vec<_>>())
        .max_age(MAX_AGE)
}
