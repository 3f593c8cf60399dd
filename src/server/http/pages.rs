use super::readiness::{Readiness, ReadinessProbe};
use crate::telemetry::exporter;
use axum::{
    Router,
    http::{
        StatusCode,
        header::{CACHE_CONTROL, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
    routing::get,
};

const INDEX: &str = "\
Visage

/metrics  metrics for Prometheus
/livez    200 while the process responds
/readyz   200 when requests can be served, otherwise 503; lists the components
/predict  POST an image for its age as JSON: curl --data-binary @FILE URL
/v2       the Open Inference Protocol: models, their metadata, predictions
/datasets uploads of datasets if the setting `uploads` is on, and sample images of datasets
/         the dashboard, if the program was built with it and the setting `dashboard` is on
";

#[derive(Clone)]
pub(in crate::server) struct State {
    pub(in crate::server) metrics: exporter::Handle,
    pub(in crate::server) readiness: ReadinessProbe,
    /// Further pages with other paths than those of this module.
    pub(in crate::server) pages: Router,
    /// The pages at `/` and below; `None` for a list of the paths.
    pub(in crate::server) home: Option<Router>,
}

pub(in crate::server) fn router(state: State) -> Router {
    let State {
        metrics,
        readiness,
        pages,
        home,
    } = state;
    let index = || get(|| async { INDEX });
    Router::new()
        .route("/endpoints", index())
        .merge(home.unwrap_or_else(|| Router::new().route("/", index())))
        .route("/metrics", get(|| async move { render_metrics(&metrics) }))
        .route(
            "/livez",
            get(|| async { ([(CACHE_CONTROL, "no-store")], "ok\n") }),
        )
        .route(
            "/readyz",
            get(|| async move { render_readiness(&readiness()) }),
        )
        .merge(pages)
        .fallback(|| async {
            (
                StatusCode::NOT_FOUND,
                "no such page; /endpoints lists all pages\n",
            )
        })
        .method_not_allowed_fallback(|| async {
            (
                StatusCode::METHOD_NOT_ALLOWED,
                "this page is read-only: use GET or HEAD\n",
            )
        })
}

fn render_metrics(metrics: &exporter::Handle) -> Response {
    ([(CONTENT_TYPE, exporter::CONTENT_TYPE)], metrics.render()).into_response()
}

fn render_readiness(readiness: &Readiness) -> Response {
    let status = if readiness.is_ready() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let headers = [
        (CONTENT_TYPE, "application/json"),
        (CACHE_CONTROL, "no-store"),
    ];
    match serde_json::to_string(readiness) {
        Ok(json) => (status, headers, json + "\n").into_response(),
        Err(error) => {
            tracing::error!(%error, "failed to encode the readiness of the server");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
