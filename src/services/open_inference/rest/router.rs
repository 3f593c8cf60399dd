use axum::{
    Router,
    middleware::from_fn,
    routing::{any, get, post},
};

use super::{content_type, handlers, route, state::Rest};
use crate::{
    services::{open_inference::OpenInference, request_body::RequestBodies},
    telemetry::{metrics, traces::Traces},
};

/// Creates the series of the routes, so the exporter must be installed.
pub(crate) fn router(api: OpenInference, bodies: RequestBodies, traces: Traces) -> Router {
    route::ALL.into_iter().for_each(metrics::http_known);
    let rest = Rest {
        api,
        bodies,
        traces,
    };
    let wrong_method = handlers::wrong_method;
    let mut router = Router::new()
        .route(route::SERVER, get(handlers::server).fallback(wrong_method))
        .route("/v2/", get(handlers::server).fallback(wrong_method))
        .route(route::LIVE, get(handlers::live).fallback(wrong_method))
        .route(route::READY, get(handlers::ready).fallback(wrong_method))
        .route(
            route::ALL_STATS,
            get(handlers::all_statistics).fallback(wrong_method),
        )
        .route(route::INDEX, post(handlers::index).fallback(wrong_method))
        .route(route::LOAD, post(handlers::load).fallback(wrong_method))
        .route(route::UNLOAD, post(handlers::unload).fallback(wrong_method))
        .route("/v2/{*rest}", any(handlers::not_found));
    for model in [
        "/v2/models/{model}",
        "/v2/models/{model}/versions/{version}",
    ] {
        let path = |last: &str| format!("{model}{last}");
        router = router
            .route(&path(""), get(handlers::metadata).fallback(wrong_method))
            .route(
                &path("/ready"),
                get(handlers::model_ready).fallback(wrong_method),
            )
            .route(
                &path("/config"),
                get(handlers::config).fallback(wrong_method),
            )
            .route(
                &path("/stats"),
                get(handlers::statistics).fallback(wrong_method),
            )
            .route(
                &path("/infer"),
                post(handlers::infer).fallback(wrong_method),
            );
    }
    router.layer(from_fn(content_type::check)).with_state(rest)
}
