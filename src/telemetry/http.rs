//! The HTTP port for whoever watches a server: Prometheus, an orchestrator's probes, a person with a browser.
//!
//! | Path | Answer |
//! |---|---|
//! | `/metrics` | all metrics as Prometheus text |
//! | `/livez` | 200 as long as the process answers at all; a failure means "restart me" |
//! | `/readyz` | 200 or 503, and the components that make it so as JSON; a failure means "send me no requests" |
//! | `/endpoints` | these paths |
//! | `/` | the dashboard, or these paths where there is none |
//!
//! Further pages come from whoever starts the port, such as predictions under `/v2`, uploads under `/datasets`, and the API for the dashboard, which can start and end
//! trainings.
//! Nothing here needs or checks a credential: the port is for a trusted network.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::Listener;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::{conn::auto, graceful::GracefulShutdown};
use hyper_util::service::TowerToHyperService;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tower_http::cors::CorsLayer;

use super::exporter;

/// Longest wait for the head of a request, be it the next one on a connection.
const PATIENCE: Duration = Duration::from_secs(30);

const INDEX: &str = "\
Visage

/metrics  metrics for Prometheus
/livez    200 while the process answers
/readyz   200 when requests can be served, else 503; lists the components
/v2       the Open Inference Protocol: models, their metadata, predictions
/datasets uploads of datasets, where the setting `uploads` is on, and samples of their images
/         the dashboard, where the program was built with it and the setting `dashboard` is on
";

/// Whether requests can be served now, and what that depends on.
#[derive(Clone, Debug, Serialize)]
pub struct Readiness {
    ready: bool,
    components: Vec<Component>,
}

impl Readiness {
    /// Ready exactly if all components are.
    pub fn of(components: Vec<Component>) -> Self {
        Self {
            ready: components.iter().all(|component| component.ready),
            components,
        }
    }

    /// Whether all components are ready.
    pub fn is_ready(&self) -> bool {
        self.ready
    }
}

/// One thing that must work before requests can be served.
#[derive(Clone, Debug, Serialize)]
pub struct Component {
    /// Which thing, for example `store`.
    pub name: &'static str,
    /// Whether it works now.
    pub ready: bool,
    /// What it does or lacks, for a person; anyone who reaches the port can read it.
    pub detail: String,
}

/// Answers whether requests can be served now. It is called on an asynchronous thread for every probe, so it must only look at
/// what is known already.
pub type ReadinessProbe = Arc<dyn Fn() -> Readiness + Send + Sync>;

/// What the pages show.
#[derive(Clone)]
pub struct State {
    /// The source of `/metrics`.
    pub metrics: exporter::Handle,
    /// The source of `/readyz`.
    pub readiness: ReadinessProbe,
    /// Further pages, such as a dashboard; empty for none. Their paths must differ from the ones of this module.
    pub pages: Router,
    /// The pages that stand at `/` and below; `None` for a list of the port's paths.
    pub home: Option<Router>,
    /// Which pages of other origins may call.
    pub cors: CorsLayer,
}

/// Serves the pages on `listener` until `shutdown`, and does the metrics' upkeep meanwhile. Requests that have begun may end, for no longer than `grace`, be it a
/// client that never finishes its own.
pub async fn serve(
    listener: TcpListener,
    state: State,
    shutdown: CancellationToken,
    grace: Duration,
) {
    let metrics = state.metrics.clone();
    let serving = answer_connections(listener, router(state), PATIENCE, &shutdown);
    let out_of_patience = async {
        metrics.upkeep(&shutdown).await;
        tokio::time::sleep(grace).await;
    };
    tokio::select! {
        () = serving => {}
        () = out_of_patience => {
            tracing::warn!(seconds = grace.as_secs_f64(), "left open HTTP requests unanswered at shutdown");
        }
    }
}

/// Answers on each connection, a task for each, until `shutdown`, and then what has begun. A connection whose client sends no whole head of a request for
/// as long as `patience` is closed, so that those that were forgotten leave room for others.
async fn answer_connections(
    mut listener: TcpListener,
    router: Router,
    patience: Duration,
    shutdown: &CancellationToken,
) {
    let mut http = auto::Builder::new(TokioExecutor::new()).http1_only();
    http.http1()
        .timer(TokioTimer::new())
        .header_read_timeout(patience);
    let connections = GracefulShutdown::new();
    loop {
        // It waits a moment itself where the process has no descriptors left.
        let (connection, peer) = tokio::select! {
            accepted = Listener::accept(&mut listener) => accepted,
            () = shutdown.cancelled() => break,
        };
        // Without it the end of an answer may wait until the client has acknowledged its beginning.
        if let Err(error) = connection.set_nodelay(true) {
            tracing::debug!(%error, "failed to send small packets at once");
        }
        let pages = router.clone().map_request(move |request: Request<_>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(ConnectInfo(peer));
            request
        });
        let service = TowerToHyperService::new(pages);
        let answering = http.serve_connection(TokioIo::new(connection), service);
        let answering = connections.watch(answering.into_owned());
        tokio::spawn(async move {
            if let Err(error) = answering.await {
                tracing::debug!(%error, "a connection of the HTTP port ended");
            }
        });
    }
    drop(listener);
    connections.shutdown().await;
}

/// The pages alone, for a server that is not started by [`serve`]; whoever runs it also owes [`exporter::Handle::upkeep`].
pub fn router(state: State) -> Router {
    let State {
        metrics,
        readiness,
        pages,
        home,
        cors,
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
                "no such page; /endpoints lists those that exist\n",
            )
        })
        .method_not_allowed_fallback(|| async {
            (
                StatusCode::METHOD_NOT_ALLOWED,
                "this page can only be read: use GET or HEAD\n",
            )
        })
        .layer(cors)
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
            tracing::error!(%error, "could not render the readiness of the server");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::task::JoinHandle;

    use super::*;

    const GRACE: Duration = Duration::from_secs(5);

    struct Server {
        address: SocketAddr,
        store_works: Arc<AtomicBool>,
        shutdown: CancellationToken,
        serving: JoinHandle<()>,
    }

    impl Server {
        async fn start() -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let store_works = Arc::new(AtomicBool::new(true));
            let seen = Arc::clone(&store_works);
            let state = State {
                metrics: exporter::install().unwrap(),
                readiness: Arc::new(move || {
                    let ready = seen.load(Ordering::SeqCst);
                    let detail = if ready {
                        "answers"
                    } else {
                        "database is locked"
                    };
                    Readiness::of(vec![
                        Component {
                            name: "store",
                            ready,
                            detail: detail.into(),
                        },
                        Component {
                            name: "model",
                            ready: true,
                            detail: "age version 1".into(),
                        },
                    ])
                }),
                pages: Router::new().route("/dashboard", get(|| async { "a dashboard" })),
                home: None,
                cors: CorsLayer::new(),
            };
            let shutdown = CancellationToken::new();
            let serving = tokio::spawn(serve(listener, state, shutdown.clone(), GRACE));
            Self {
                address,
                store_works,
                shutdown,
                serving,
            }
        }

        /// Sends one request on a connection of its own and returns the head, in lower case, and the body.
        async fn ask(&self, method: &str, path: &str) -> (String, String) {
            let mut connection = TcpStream::connect(self.address).await.unwrap();
            let request =
                format!("{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
            connection.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            connection.read_to_string(&mut answer).await.unwrap();
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            (head.to_lowercase(), body.to_owned())
        }

        async fn stop(self) {
            self.shutdown.cancel();
            tokio::time::timeout(GRACE * 2, self.serving)
                .await
                .unwrap()
                .unwrap();
        }
    }

    #[tokio::test]
    async fn metrics_are_prometheus_text() {
        let server = Server::start().await;
        let (head, body) = server.ask("GET", "/metrics").await;
        assert!(head.starts_with("http/1.1 200 "), "{head}");
        assert!(
            head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"),
            "{head}"
        );
        assert!(
            body.contains("\n# TYPE visage_predict_queue_depth gauge\n"),
            "{body}"
        );
        server.stop().await;
    }

    #[tokio::test]
    async fn readiness_is_503_with_the_reason_while_a_component_fails() {
        let server = Server::start().await;
        let (head, body) = server.ask("GET", "/readyz").await;
        assert!(head.starts_with("http/1.1 200 "), "{head}");
        assert!(body.starts_with("{\"ready\":true,"), "{body}");

        server.store_works.store(false, Ordering::SeqCst);
        let (head, body) = server.ask("GET", "/readyz").await;
        assert!(head.starts_with("http/1.1 503 "), "{head}");
        assert!(head.contains("content-type: application/json"), "{head}");
        let page: serde_json::Value = serde_json::from_str(&body).unwrap();
        let expected = serde_json::json!({
            "ready": false,
            "components": [
                {"name": "store", "ready": false, "detail": "database is locked"},
                {"name": "model", "ready": true, "detail": "age version 1"},
            ],
        });
        assert_eq!(page, expected);

        let (head, _) = server.ask("GET", "/livez").await;
        assert!(
            head.starts_with("http/1.1 200 "),
            "a failing component is no reason to restart: {head}"
        );
        server.stop().await;
    }

    #[tokio::test]
    async fn head_is_get_without_the_body() {
        let server = Server::start().await;
        for path in ["/", "/metrics", "/livez", "/readyz", "/dashboard"] {
            let (head, body) = server.ask("HEAD", path).await;
            assert!(head.starts_with("http/1.1 200 "), "{path}: {head}");
            assert!(body.is_empty(), "{path}: {body}");
        }
        server.stop().await;
    }

    #[tokio::test]
    async fn unknown_page_is_404_and_unknown_method_405() {
        let server = Server::start().await;
        let (head, body) = server.ask("GET", "/metric").await;
        assert!(head.starts_with("http/1.1 404 "), "{head}");
        assert!(body.contains("no such page"), "{body}");

        let (head, body) = server.ask("POST", "/metrics").await;
        assert!(head.starts_with("http/1.1 405 "), "{head}");
        assert!(head.contains("allow: get,head"), "{head}");
        assert!(body.contains("GET or HEAD"), "{body}");
        server.stop().await;
    }

    #[tokio::test]
    async fn index_lists_every_page() {
        let server = Server::start().await;
        let (_, body) = server.ask("GET", "/").await;
        assert_eq!(server.ask("GET", "/endpoints").await.1, body);
        for path in ["/metrics", "/livez", "/readyz"] {
            assert!(body.lines().any(|line| line.starts_with(path)), "{body}");
        }
        server.stop().await;
    }

    #[tokio::test]
    async fn shutdown_does_not_wait_for_an_idle_connection() {
        let server = Server::start().await;
        let mut idle = TcpStream::connect(server.address).await.unwrap();
        idle.write_all(b"GET /livez HTTP/1.1\r\nhost: test\r\n\r\n")
            .await
            .unwrap();
        let mut first_byte = [0];
        idle.read_exact(&mut first_byte).await.unwrap();

        server.shutdown.cancel();
        tokio::time::timeout(GRACE / 2, server.serving)
            .await
            .unwrap()
            .unwrap();
    }

    #[tokio::test]
    async fn connections_that_send_nothing_whole_are_closed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/livez", get(|| async { "ok" }));
        let (patience, shutdown) = (Duration::from_millis(200), CancellationToken::new());
        let serving = tokio::spawn({
            let shutdown = shutdown.clone();
            async move { answer_connections(listener, router, patience, &shutdown).await }
        });
        for beginning in [
            "",
            "GET /livez HTTP/1.1\r\nhost:",
            "GET /livez HTTP/1.1\r\nhost: test\r\n\r\n",
        ] {
            let mut connection = TcpStream::connect(address).await.unwrap();
            connection.write_all(beginning.as_bytes()).await.unwrap();
            let begun = std::time::Instant::now();
            let mut answer = String::new();
            let read = connection.read_to_string(&mut answer);
            tokio::time::timeout(100 * patience, read)
                .await
                .unwrap()
                .unwrap();
            assert!(begun.elapsed() >= patience / 2, "{beginning:?}");
            let is_answered = answer.ends_with("ok");
            assert_eq!(is_answered, beginning.ends_with("\r\n\r\n"), "{answer}");
        }
        shutdown.cancel();
        serving.await.unwrap();
    }
}
