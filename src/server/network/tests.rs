use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{Router, body::Body, extract::Request, middleware::from_fn, routing::get};
use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{ConnectionState, Limits, PortOptions, Protocols, Sockets, serve};
use crate::telemetry::metrics::Port;

const TIMEOUT: Duration = Duration::from_millis(200);

/// Starts a server that ends when the guard is dropped.
async fn start(router: Router, limits: Limits) -> (SocketAddr, DropGuard) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let serving = shutdown.clone();
    tokio::spawn(async move {
        let sockets = Sockets {
            tcp: listener,
            unix: None,
        };
        let options = PortOptions {
            port: Port::Grpc,
            protocols: Protocols::Http1AndHttp2,
            limits,
            tls: None,
            proxies: Arc::default(),
        };
        serve(sockets, router, options, &serving).await;
    });
    (address, shutdown.drop_guard())
}

fn limits(connections: usize, per_address: usize) -> Limits {
    Limits {
        connections,
        per_address,
        header_timeout: TIMEOUT,
    }
}

fn small() -> Router {
    Router::new().route("/livez", get(|| async { "ok" }))
}

/// Reads until the server closes the connection.
async fn rest(connection: &mut TcpStream) -> String {
    let mut answer = String::new();
    let read = connection.read_to_string(&mut answer);
    tokio::time::timeout(100 * TIMEOUT, read)
        .await
        .unwrap()
        .unwrap();
    answer
}

#[tokio::test]
async fn connections_without_a_complete_request_are_closed() {
    let (address, _server) = start(small(), limits(10, 10)).await;
    for beginning in [
        "",
        "PRI * HTTP/2.0\r\n",
        "GET /livez HTTP/1.1\r\nhost:",
        "GET /livez HTTP/1.1\r\nhost: test\r\n\r\n",
    ] {
        let mut connection = TcpStream::connect(address).await.unwrap();
        connection.write_all(beginning.as_bytes()).await.unwrap();
        let started = Instant::now();
        let answer = rest(&mut connection).await;
        assert!(started.elapsed() >= TIMEOUT / 2, "{beginning:?}");
        let is_answered = answer.ends_with("ok");
        assert_eq!(is_answered, beginning.ends_with("\r\n\r\n"), "{answer}");
    }
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_and_places_are_given_back() {
    let (address, _server) = start(small(), limits(10, 2)).await;
    let request = b"GET /livez HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";
    let first = TcpStream::connect(address).await.unwrap();
    let _second = TcpStream::connect(address).await.unwrap();
    let mut third = TcpStream::connect(address).await.unwrap();
    // Accepted in order, so the third one is beyond the limit.
    assert_eq!(third.read(&mut [0; 8]).await.unwrap(), 0);
    drop(first);
    // The server notices the end of the first connection at some time.
    let deadline = Instant::now() + 100 * TIMEOUT;
    loop {
        assert!(Instant::now() < deadline, "the place was not given back");
        let mut next = TcpStream::connect(address).await.unwrap();
        if next.write_all(request).await.is_err() {
            continue;
        }
        let mut answer = String::new();
        if next.read_to_string(&mut answer).await.is_ok() && answer.ends_with("ok") {
            break;
        }
    }
}

#[tokio::test]
async fn connection_whose_client_does_not_read_is_closed() {
    // More than the buffers of the sockets take.
    let frame = Bytes::from(vec![7; 32 * 1024]);
    let endless = move || {
        let frame = frame.clone();
        async move {
            let frames = tokio_stream::iter(std::iter::repeat_with(move || {
                Ok::<_, std::io::Error>(frame.clone())
            }));
            Body::from_stream(frames)
        }
    };
    let router = Router::new().route("/endless", get(endless)).layer(from_fn(
        |request: Request, next: axum::middleware::Next| async move {
            let state = request.extensions().get::<ConnectionState>().cloned();
            let response = next.run(request).await;
            let watch = state.unwrap().responses;
            response.map(|body| Body::new(watch.wrap(body, TIMEOUT)))
        },
    ));
    let (address, _server) = start(router, limits(1, 1)).await;
    let mut connection = TcpStream::connect(address).await.unwrap();
    connection
        .write_all(b"GET /endless HTTP/1.1\r\nhost: test\r\n\r\n")
        .await
        .unwrap();
    // Its place is free again only after the server has closed it.
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        assert!(Instant::now() < deadline, "the connection was not closed");
        let mut next = TcpStream::connect(address).await.unwrap();
        let request = b"GET /livez HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";
        let mut answer = Vec::new();
        if next.write_all(request).await.is_ok()
            && next.read_to_end(&mut answer).await.is_ok()
            && answer.starts_with(b"HTTP/1.1 404")
        {
            break;
        }
        tokio::time::sleep(TIMEOUT).await;
    }
}
