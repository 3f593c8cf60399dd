use axum::{
    Extension, Router,
    http::{
        StatusCode,
        header::{CACHE_CONTROL, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
    routing::get,
};

use super::{
    login,
    readiness::{Readiness, ReadinessProbe},
};
use crate::{
    access::{Identity, Role},
    server::auth::Auth,
    telemetry::exporter,
};

const INDEX: &str = "\
Visage

/metrics  metrics for Prometheus
/login    POST a name and password, or a token, for a session; /logout ends it, /session has its roles
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
    pub(in crate::server) auth: Auth,
    /// The pages at `/` and below; `None` for a list of the paths.
    pub(in crate::server) home: Option<Router>,
}

pub(in crate::server) fn router(state: State) -> Router {
    let State {
        metrics,
        readiness,
        pages,
        auth,
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
            get(|Extension(identity): Extension<Identity>| async move {
                render_readiness(&readiness(), identity.has(Role::Metrics))
            }),
        )
        .merge(login::router(auth))
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

/// The details of the components may name paths.
fn render_readiness(readiness: &Readiness, has_details: bool) -> Response {
    let status = if readiness.is_ready() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let headers = [
        (CONTENT_TYPE, "application/json"),
        (CACHE_CONTROL, "no-store"),
    ];
    let json = if has_details {
        serde_json::to_string(readiness)
    } else {
        serde_json::to_string(&serde_json::json!({ "ready": readiness.is_ready() }))
    };
    match json {
        Ok(json) => (status, headers, json + "\n").into_response(),
        Err(error) => {
            tracing::error!(%error, "failed to encode the readiness of the server");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
