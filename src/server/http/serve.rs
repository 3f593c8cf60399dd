use std::time::Duration;

use axum::{
    Router,
    body::Body,
    extract::{ConnectInfo, Request},
    serve::Listener,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::pages::{State, router};

/// Maximum wait for the headers of a request, also of a further one on the same connection.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// Serves the pages until `shutdown` and maintains the metrics meanwhile. Running requests may
/// finish within `grace`.
pub(in crate::server) async fn serve(
    listener: TcpListener,
    state: State,
    shutdown: CancellationToken,
    grace: Duration,
) {
    let metrics = state.metrics.clone();
    let serving = serve_connections(listener, router(state), HEADER_TIMEOUT, &shutdown);
    let grace_expired = async {
        metrics.upkeep(&shutdown).await;
        tokio::time::sleep(grace).await;
    };
    tokio::select! {
        () = serving => {}
        () = grace_expired => {
            tracing::warn!(
                seconds = grace.as_secs_f64(),
                "HTTP requests did not finish within the grace period and are dropped"
            );
        }
    }
}

/// Serves each connection in its own task until `shutdown`, then waits for the running requests.
///
/// A connection without complete request headers within `header_timeout` is closed, so that idle
/// connections do not use up the process's file descriptors.
pub(super) async fn serve_connections(
    mut listener: TcpListener,
    router: Router,
    header_timeout: Duration,
    shutdown: &CancellationToken,
) {
    let mut http = auto::Builder::new(TokioExecutor::new()).http1_only();
    http.http1()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout);
    let connections = GracefulShutdown::new();
    loop {
        // Waits and retries on its own when the process has no file descriptors left.
        let (connection, peer) = tokio::select! {
            accepted = Listener::accept(&mut listener) => accepted,
            () = shutdown.cancelled() => break,
        };
        // Otherwise the end of a response may wait for the acknowledgement of its start.
        if let Err(error) = connection.set_nodelay(true) {
            tracing::debug!(%error, "failed to set TCP_NODELAY");
        }
        let pages = router.clone().map_request(move |request: Request<_>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(ConnectInfo(peer));
            request
        });
        let service = TowerToHyperService::new(pages);
        let connection = http.serve_connection(TokioIo::new(connection), service);
        let connection = connections.watch(connection.into_owned());
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection of the HTTP port failed");
            }
        });
    }
    drop(listener);
    connections.shutdown().await;
}
