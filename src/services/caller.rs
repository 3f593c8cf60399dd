//! The client and the deadline of a call.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    time::Instant,
};

use axum::extract::ConnectInfo;
use http::{Extensions, HeaderMap};
use tonic::{Request, Status};

use crate::{access::Identity, inference::Client};

use super::status;

/// The header that distinguishes clients of a trusted proxy; the server removes it from requests
/// of others.
const CLIENT_ID: &str = "client-id";
/// Maximum length of its value in bytes.
const MAX_ID: usize = 64;

/// The time when the client gives up on a call, less a margin for the response; the deadline layer
/// puts it into the extensions of the request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline(pub(crate) Instant);

#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// An authenticated identity; otherwise identified by the header `client-id`, otherwise by the
    /// address.
    pub(super) client: Client,
    pub(super) deadline: Option<Instant>,
}

impl Caller {
    pub(super) fn of<T>(request: &Request<T>) -> Result<Self, Status> {
        Caller::new(request.metadata().as_ref(), request.extensions())
    }

    /// # Errors
    /// INVALID_ARGUMENT for a `client-id` that is empty or too long.
    pub(super) fn new(headers: &HeaderMap, extensions: &Extensions) -> Result<Self, Status> {
        let deadline = extensions.get::<Deadline>().map(|found| found.0);
        let identity = extensions.get::<Identity>();
        if let Some(identity) = identity.filter(|identity| identity.is_authenticated()) {
            let client = authenticated(identity);
            return Ok(Caller { client, deadline });
        }
        let client = match headers.get(CLIENT_ID) {
            Some(id) if (1..=MAX_ID).contains(&id.len()) => {
                Client::new(&format!("id {}", String::from_utf8_lossy(id.as_bytes())))
            }
            Some(id) => {
                return Err(status::invalid(
                    CLIENT_ID,
                    format!(
                        "the header must have 1 to {MAX_ID} bytes, got {}; omit it to be identified by the address",
                        id.len()
                    ),
                ));
            }
            None => Source::of(extensions)
                .map_or_else(Client::unknown, |source| Client::new(&source.to_string())),
        };
        Ok(Caller { client, deadline })
    }
}

/// The client with an authenticated identity, from any address.
pub(super) fn authenticated(identity: &Identity) -> Client {
    Client::new(&format!("identity {}", identity.owner()))
}

/// The user id of the client of a Unix socket, in the extensions of its requests.
#[derive(Debug, Clone, Copy)]
pub(crate) struct UnixUser(pub(crate) u32);

/// The address of a TCP client, behind a trusted proxy as that proxy reports it.
pub(crate) fn address(extensions: &Extensions) -> Option<SocketAddr> {
    extensions
        .get::<ConnectInfo<SocketAddr>>()
        .map(|info| info.0)
}

pub(crate) fn user(extensions: &Extensions) -> Option<u32> {
    extensions.get::<UnixUser>().map(|user| user.0)
}

/// The unit of limits on clients without an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Source {
    Network(IpAddr),
    /// The user id of clients of a Unix socket.
    User(u32),
}

impl Source {
    pub(crate) fn of(extensions: &Extensions) -> Option<Self> {
        let network = || address(extensions).map(|address| Self::Network(network_of(address.ip())));
        user(extensions).map(Self::User).or_else(network)
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(network) => network.fmt(f),
            Self::User(id) => write!(f, "uid {id}"),
        }
    }
}

/// An IPv4 address, or the /64 network of an IPv6 address: a client usually has a whole one, from
/// which it could use each address (RFC 6177).
pub(crate) fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::access::{Limits, Roles};

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
    fn client_is_identified_by_its_header_or_its_address_without_the_port() {
        let by_address = client(None, "10.0.0.1:5000").unwrap();
        assert_eq!(by_address, client(None, "10.0.0.1:6000").unwrap());
        assert_ne!(by_address, client(None, "10.0.0.2:5000").unwrap());
        let by_header = client(Some("batch"), "10.0.0.1:5000").unwrap();
        assert_eq!(by_header, client(Some("batch"), "10.0.0.2:1").unwrap());
        assert_ne!(by_header, client(Some("page"), "10.0.0.1:5000").unwrap());
        // The addresses of a /64 network belong to one client.
        let v6 = client(None, "[2001:db8::1]:1").unwrap();
        assert_eq!(v6, client(None, "[2001:db8::2:0:0:1]:2").unwrap());
        assert_ne!(v6, client(None, "[2001:db8:0:1::1]:1").unwrap());
        assert_eq!(by_address, client(None, "[::ffff:10.0.0.1]:1").unwrap());
        // A client cannot pretend to have another address.
        assert_ne!(by_address, client(Some("10.0.0.1"), "10.0.0.3:1").unwrap());
    }

    #[test]
    fn authenticated_identity_is_one_client_whatever_its_address_and_header() {
        let client = |name: &str, id: &'static str| {
            let mut request = Request::new(());
            let (roles, limits) = (Roles::default(), Limits::default());
            let revoked = CancellationToken::new();
            let identity = Identity::new(name.to_owned(), roles, limits, None, revoked);
            request.extensions_mut().insert(identity);
            request
                .metadata_mut()
                .insert(CLIENT_ID, id.parse().unwrap());
            Caller::of(&request).unwrap().client
        };
        assert_eq!(client("ci", "one"), client("ci", "other"));
        assert_ne!(client("ci", "one"), client("phone", "one"));
    }

    #[test]
    fn header_that_is_too_long_or_empty_is_refused() {
        for id in ["", &"x".repeat(65)] {
            let refused = client(Some(id), "10.0.0.1:5000").unwrap_err();
            assert_eq!(refused.code(), tonic::Code::InvalidArgument);
            let bytes = format!("64 bytes, got {};", id.len());
            assert!(format!("{refused:?}").contains(&bytes), "{refused:?}");
        }
        assert!(client(Some(&"x".repeat(64)), "10.0.0.1:5000").is_ok());
    }
}
