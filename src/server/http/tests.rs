use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{Extension, Router, routing::get};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::{
    State,
    pages::router,
    readiness::{Component, Readiness},
    serve::serve,
};
use crate::{
    access::{Authenticator, Identity},
    config::AuthMethods,
    server::{
        auth::Auth,
        layers::{Denials, Failures},
        network::{Limits, PortOptions, Protocols, Sockets},
    },
    telemetry::{exporter, metrics::Port},
};

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
                Readiness::of(
                    4000,
                    vec![
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
                    ],
                )
            }),
            pages: Router::new().route("/dashboard", get(|| async { "a dashboard" })),
            auth: Auth {
                authenticator: Authenticator::open(AuthMethods::default(), PathBuf::new(), None)
                    .unwrap(),
                audit: None,
                failures: Failures::of_sources(),
                logins: Failures::of_sources(),
                denials: Denials::of_identities(),
                cookie: Arc::from("visage-0"),
            },
            home: None,
        };
        let options = PortOptions {
            port: Port::Http,
            protocols: Protocols::Http1,
            limits: Limits {
                connections: 100,
                per_address: 100,
                header_timeout: Duration::from_secs(30),
            },
            tls: None,
            proxies: Arc::default(),
        };
        let sockets = Sockets {
            tcp: listener,
            unix: None,
        };
        let metrics = state.metrics.clone();
        let shutdown = CancellationToken::new();
        let serving = tokio::spawn(serve(
            sockets,
            router(state).layer(Extension(Identity::anonymous())),
            options,
            metrics,
            shutdown.clone(),
            GRACE,
        ));
        Self {
            address,
            store_works,
            shutdown,
            serving,
        }
    }

    /// Sends one request on its own connection and returns the headers, in lower case, and the
    /// body.
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
        "grpc_port": 4000,
        "components": [
            {"name": "store", "ready": false, "detail": "database is locked"},
            {"name": "model", "ready": true, "detail": "age version 1"},
        ],
    });
    assert_eq!(page, expected);

    let (head, _) = server.ask("GET", "/livez").await;
    assert!(
        head.starts_with("http/1.1 200 "),
        "a failing component must not cause a restart: {head}"
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
