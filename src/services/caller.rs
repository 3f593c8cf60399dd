//! Who calls, and until when the answer is worth something.

use std::{net::SocketAddr, time::Instant};

use axum::extract::ConnectInfo;
use http::{Extensions, HeaderMap};
use tonic::{Request, Status, transport::server::TcpConnectInfo};

use crate::inference::Client;

use super::{deadline::Deadline, status};

/// The header by which a client tells itself from others at the same address, such as behind a proxy.
const CLIENT_ID: &str = "client-id";
/// Longest value of it, in bytes.
const LONGEST_ID: usize = 64;

/// What is known of a call beside what it asks.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    /// Who calls: by its header `client-id`, else by its address.
    pub(super) client: Client,
    /// When the answer is worth nothing any more.
    pub(super) deadline: Option<Instant>,
}

impl Caller {
    /// Of a gRPC call.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for a `client-id` that is empty or too long.
    pub(super) fn of<T>(request: &Request<T>) -> Result<Self, Status> {
        Caller::new(request.metadata().as_ref(), request.extensions())
    }

    /// Of a call by its headers and extensions.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for a `client-id` that is empty or too long.
    pub(super) fn new(headers: &HeaderMap, extensions: &Extensions) -> Result<Self, Status> {
        let deadline = extensions.get::<Deadline>().map(|found| found.0);
        let client = match headers.get(CLIENT_ID) {
            Some(id) if (1..=LONGEST_ID).contains(&id.len()) => {
                Client::new(&format!("id {}", String::from_utf8_lossy(id.as_bytes())))
            }
            Some(id) => {
                return Err(status::invalid(
                    CLIENT_ID,
                    &format!(
                        "the header has {} bytes; give 1 to {LONGEST_ID}, or leave it out to go by the address",
                        id.len()
                    ),
                ));
            }
            None => address(extensions).map_or_else(Client::unknown, |address| {
                Client::new(&address.ip().to_string())
            }),
        };
        Ok(Caller { client, deadline })
    }
}

fn address(extensions: &Extensions) -> Option<SocketAddr> {
    let grpc = extensions.get::<TcpConnectInfo>();
    let http = || extensions.get::<ConnectInfo<SocketAddr>>();
    grpc.and_then(TcpConnectInfo::remote_addr)
        .or_else(|| http().map(|info| info.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(id: Option<&str>, address: &str) -> Result<Client, Status> {
        let mut request = Request::new(());
        if let Some(id) = id {
            request
                .metadata_mut()
                .insert(CLIENT_ID, id.parse().unwrap());
        }
        let address: SocketAddr = address.parse().unwrap();
        request.extensions_mut().insert(ConnectInfo(address));
        Caller::of(&request).map(|caller| caller.client)
    }

    #[test]
    fn client_is_told_by_its_header_or_by_its_address_without_the_port() {
        let by_address = client(None, "10.0.0.1:5000").unwrap();
        assert_eq!(by_address, client(None, "10.0.0.1:6000").unwrap());
        assert_ne!(by_address, client(None, "10.0.0.2:5000").unwrap());
        let by_header = client(Some("batch"), "10.0.0.1:5000").unwrap();
        assert_eq!(by_header, client(Some("batch"), "10.0.0.2:1").unwrap());
        assert_ne!(by_header, client(Some("page"), "10.0.0.1:5000").unwrap());
        // Nobody can take another one's address for a name.
        assert_ne!(by_address, client(Some("10.0.0.1"), "10.0.0.3:1").unwrap());
    }

    #[test]
    fn header_that_is_too_long_or_empty_is_refused() {
        for id in ["", &"x".repeat(65)] {
            let refused = client(Some(id), "10.0.0.1:5000").unwrap_err();
            assert_eq!(refused.code(), tonic::Code::InvalidArgument);
            let bytes = format!("has {} bytes", id.len());
            assert!(format!("{refused:?}").contains(&bytes), "{refused:?}");
        }
        assert!(client(Some(&"x".repeat(64)), "10.0.0.1:5000").is_ok());
    }
}
