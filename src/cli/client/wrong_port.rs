//! Explains why a server is unreachable if the address is that of another port.

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
/// Most bytes of a response that are read.
const MAX_BYTES: u64 = 64 * 1024;

/// The error of a server that does not respond to gRPC at this URL.
pub(crate) async fn explain(server: String, cause: String) -> Error {
    // A server with TLS does not respond to plain HTTP.
    let address = server.strip_prefix("http://").map(str::to_owned);
    let response = match &address {
        Some(address) => timeout(TIMEOUT, readiness(address)).await.ok().flatten(),
        None => None,
    };
    let (Some(response), Some(address)) = (response, address) else {
        return Error::Unreachable { server, cause };
    };
    match grpc_port(&response) {
        Some(port) => {
            let host = address.rsplit_once(':').map_or("", |(host, _)| host);
            let grpc = format!("{host}:{port}");
            Error::HttpPort { server, grpc }
        }
        None => Error::Unreachable { server, cause },
    }
}

/// Response of `/readyz`, which only the HTTP port has.
async fn readiness(address: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let request = format!("GET /readyz HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut response = Vec::new();
    stream
        .take(MAX_BYTES)
        .read_to_end(&mut response)
        .await
        .ok()?;
    Some(String::from_utf8_lossy(&response).into_owned())
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
