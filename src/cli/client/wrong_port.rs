//! Explains why a server is unreachable if the address is that of another port, or if only one side
//! uses TLS.

use std::time::Duration;

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::cli::error::Error;

/// Longest wait for the response.
const TIMEOUT: Duration = Duration::from_secs(2);
/// The first bytes of a TLS alert.
const TLS_ALERT: &[u8] = &[0x15, 0x03];
/// Most bytes of a response that are read.
const MAX_BYTES: u64 = 64 * 1024;

/// The error of a server that does not respond to gRPC at this URL.
pub(crate) async fn explain(server: String, cause: String) -> Error {
    let (address, has_tls) = match (
        server.strip_prefix("http://"),
        server.strip_prefix("https://"),
    ) {
        (Some(address), _) => (address.to_owned(), false),
        (None, Some(address)) => (address.to_owned(), true),
        (None, None) => return Error::Unreachable { server, cause },
    };
    let Ok(Ok(stream)) = timeout(TIMEOUT, TcpStream::connect(&address)).await else {
        return Error::Unreachable { server, cause };
    };
    if has_tls {
        // TLS 1.3 reports a refused client only after the handshake, often by closing alone.
        let cause = "the server closed the connection; if it requires a client certificate, name it with --cert and --key, and use one that its `tls_client_ca` signed and that is valid".to_owned();
        return Error::Connection { server, cause };
    }
    match timeout(TIMEOUT, readiness(stream, &address)).await {
        Ok(response) if response.is_empty() || response.starts_with(TLS_ALERT) => {
            let cause = format!(
                "the server closed the connection as one that requires TLS does; use https:// instead of {server}"
            );
            Error::Connection { server, cause }
        }
        Ok(response) => match grpc_port(&String::from_utf8_lossy(&response)) {
            Some(port) => {
                let host = address.rsplit_once(':').map_or("", |(host, _)| host);
                let grpc = format!("{host}:{port}");
                Error::HttpPort { server, grpc }
            }
            None => Error::Unreachable { server, cause },
        },
        Err(_) => Error::Unreachable { server, cause },
    }
}

/// Response of `/readyz`, which only the HTTP port has; empty if the server closes the connection.
async fn readiness(mut stream: TcpStream, address: &str) -> Vec<u8> {
    let request = format!("GET /readyz HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    let mut response = Vec::new();
    if stream.write_all(request.as_bytes()).await.is_ok() {
        // An error, as from a reset, follows what was read before it.
        stream.take(MAX_BYTES).read_to_end(&mut response).await.ok();
    }
    response
}

/// The gRPC port in a response of `/readyz`.
fn grpc_port(response: &str) -> Option<u64> {
    let (head, body) = response.split_once("\r\n\r\n")?;
    let body = body.get(body.find('{')?..=body.rfind('}')?)?;
    let body: Value = serde_json::from_str(body).ok()?;
    head.starts_with("HTTP/1.1 ")
        .then(|| body["grpc_port"].as_u64())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_read_from_a_response_of_readyz_only() {
        let response =
            |body: &str| format!("HTTP/1.1 503 Service Unavailable\r\na: b\r\n\r\n{body}");
        let ready = r#"{"ready":false,"grpc_port":4000,"components":[]}"#;
        assert_eq!(grpc_port(&response(ready)), Some(4000));
        assert_eq!(grpc_port(&response("{}")), None);
        assert_eq!(grpc_port(&response("no such page")), None);
        assert_eq!(grpc_port("\0\0\u{12}\u{4}"), None);
    }
}
