use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Body,
    extract::{ConnectInfo, Request},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::Watcher},
    service::TowerToHyperService,
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::{
    listener::PortOptions,
    progress::ResponseWatch,
    protocol::{Protocol, Protocols, detect},
    stream::{Opened, Socket},
};
use crate::{
    store::Lane,
    telemetry::metrics::{self, ConnectionRefusal},
};

/// Concurrent requests of one HTTP/2 connection.
const MAX_STREAMS: u32 = 256;
/// Streams that the server reset because of errors of the client, before the connection is closed.
const MAX_RESET_STREAMS: usize = 1024;
const MAX_HEADER_LIST_BYTES: u32 = 16 * 1024;
const MAX_HEADERS: usize = 64;
/// Finds clients that left without closing the connection.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// Interval of the checks whether a client reads its responses.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// State that the requests of one connection share; in the extensions of each request.
#[derive(Debug, Clone, Default)]
pub(in crate::server) struct ConnectionState {
    /// The order of the connection's writes.
    pub(in crate::server) writes: Lane,
    pub(in crate::server) responses: ResponseWatch,
    /// Cancelled to close the connection without a response.
    pub(in crate::server) close: CancellationToken,
    pub(in crate::server) is_tls: bool,
    /// The verified certificate of the client in DER.
    pub(in crate::server) peer_certificate: Option<Arc<[u8]>>,
}

/// An accepted connection.
pub(super) struct Accepted {
    pub(super) socket: Socket,
    /// `None` for a Unix socket.
    pub(super) peer: Option<SocketAddr>,
    pub(super) watcher: Watcher,
    pub(super) shutdown: CancellationToken,
}

/// Serves a connection until it ends, is not used in time, or its client does not read.
pub(super) async fn serve(accepted: Accepted, router: Router, options: PortOptions) {
    let Accepted {
        socket,
        peer,
        watcher,
        shutdown,
    } = accepted;
    let PortOptions {
        port,
        protocols,
        limits,
        tls,
        proxies: _,
    } = options;
    let opened = tokio::select! {
        opened = tokio::time::timeout(limits.header_timeout, socket.open(tls.as_ref(), protocols)) => opened,
        () = shutdown.cancelled() => return,
    };
    let Opened {
        stream,
        is_tls,
        peer_certificate,
        peer_user,
        authorities_changed,
    } = match opened {
        Ok(Ok(opened)) => opened,
        Ok(Err(error)) => {
            tracing::debug!(?peer, %error, "a TLS handshake failed");
            metrics::connection_refused(port, ConnectionRefusal::Handshake);
            return;
        }
        Err(_) => {
            metrics::connection_refused(port, ConnectionRefusal::Handshake);
            return;
        }
    };
    let detected = tokio::select! {
        detected = tokio::time::timeout(limits.header_timeout, detect(stream)) => detected,
        () = shutdown.cancelled() => return,
    };
    let (protocol, stream) = match detected {
        Ok(Ok(detected)) => detected,
        Ok(Err(error)) => {
            tracing::debug!(?peer, %error, "a connection ended before its first request");
            return;
        }
        Err(_) => {
            metrics::connection_refused(port, ConnectionRefusal::NoRequest);
            return;
        }
    };
    if protocol == Protocol::Http2 && protocols == Protocols::Http1 {
        tracing::debug!(?peer, "refused HTTP/2 on a port that serves HTTP/1.1");
        return;
    }

    let state = ConnectionState {
        is_tls,
        peer_certificate,
        ..ConnectionState::default()
    };
    let (responses, close) = (state.responses.clone(), state.close.clone());
    let service = router.map_request(move |request: Request<_>| {
        let mut request = request.map(Body::new);
        let extensions = request.extensions_mut();
        if let Some(peer) = peer {
            extensions.insert(ConnectInfo(peer));
        }
        if let Some(user) = peer_user {
            extensions.insert(user);
        }
        extensions.insert(state.clone());
        request
    });
    let http = builder(protocol, limits.header_timeout);
    let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    let connection = watcher.watch(connection.into_owned());
    tokio::select! {
        ended = connection => {
            if let Err(error) = ended {
                tracing::debug!(?peer, %error, "a connection failed");
            }
        }
        () = close.cancelled() => {
            metrics::connection_refused(port, ConnectionRefusal::NoRequest);
        }
        () = authorities_changed.cancelled() => {
            tracing::debug!(?peer, "closed a connection because tls_client_ca has changed");
        }
        () = stalled(&responses) => {
            metrics::connection_refused(port, ConnectionRefusal::NotRead);
            tracing::debug!(?peer, "closed a connection whose client does not read its responses");
        }
    }
}

fn builder(protocol: Protocol, header_timeout: Duration) -> auto::Builder<TokioExecutor> {
    let builder = auto::Builder::new(TokioExecutor::new());
    let mut builder = match protocol {
        Protocol::Http1 => builder.http1_only(),
        Protocol::Http2 => builder.http2_only(),
    };
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .max_headers(MAX_HEADERS);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_local_error_reset_streams(MAX_RESET_STREAMS)
        .max_header_list_size(MAX_HEADER_LIST_BYTES)
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT);
    builder
}

/// Returns when the client has not read a part of a response in time.
async fn stalled(responses: &ResponseWatch) {
    let mut checks = tokio::time::interval(CHECK_INTERVAL);
    loop {
        checks.tick().await;
        if responses.is_stalled(Instant::now()) {
            return;
        }
    }
}
