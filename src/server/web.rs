//! What browsers need: gRPC-Web on both ports, and leave for pages of other origins.

use std::time::Duration;

use axum::Router;
use http::{HeaderName, HeaderValue, Method};
use tonic::service::Routes;
use tonic_web::GrpcWebLayer;
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use crate::{
    services::{deadline::DeadlineLayer, uploads},
    telemetry::rpc::RpcMetricsLayer,
};

/// How long a browser may go by the leave that it got.
const LEAVE: Duration = Duration::from_secs(3600);

/// Answers browsers' questions about origins (CORS): all of those in `origins` may call, `*` stands for any, and none may where there is none.
pub(super) fn cors(origins: &[String]) -> CorsLayer {
    let allowed = match origins.iter().any(|origin| origin == "*") {
        true => AllowOrigin::any(),
        false => AllowOrigin::list(
            origins
                .iter()
                .filter_map(|origin| HeaderValue::from_str(origin).ok()),
        ),
    };
    let with_the_answer = [
        "grpc-status",
        "grpc-message",
        "grpc-status-details-bin",
        "inference-header-content-length",
    ];
    CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([[Method::GET, Method::POST].as_slice(), &uploads::METHODS].concat())
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(
            with_the_answer
                .into_iter()
                .chain(uploads::EXPOSED)
                .map(HeaderName::from_static)
                .collect::<Vec<_>>(),
        )
        .max_age(LEAVE)
}

/// The API for the HTTP port, as gRPC-Web only.
pub(super) fn api(routes: Routes, rpc_metrics: RpcMetricsLayer) -> Router {
    // The page that says "no such page" is the port's own.
    let services = routes.into_axum_router().reset_fallback();
    services
        .layer(DeadlineLayer)
        .layer(rpc_metrics)
        .layer(GrpcWebLayer::new())
}
