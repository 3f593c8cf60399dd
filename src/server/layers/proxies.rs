//! The addresses of clients behind proxies.
//!
//! A proxy sends the address of its client as `x-forwarded-for` and its scheme as
//! `x-forwarded-proto`, and may distinguish clients by `client-id`. Any client can send these
//! headers, and could avoid its limits with them, so they count only if they come from a proxy of
//! the settings.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use axum::{
    extract::{ConnectInfo, Request},
    middleware::Next,
    response::Response,
};
use http::{HeaderMap, HeaderName};
use ipnet::IpNet;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const CLIENT_ID: HeaderName = HeaderName::from_static("client-id");

/// The networks of `trusted_proxies`.
#[derive(Debug, Clone)]
pub(crate) struct TrustedProxies(Arc<[IpNet]>);

impl TrustedProxies {
    pub(crate) fn new(networks: &[IpNet]) -> Self {
        Self(networks.into())
    }

    fn contain(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// The address nearest to the server that is not one of a trusted proxy; `peer` if all are, or
    /// if the header is not valid.
    fn client(&self, headers: &HeaderMap, peer: IpAddr) -> IpAddr {
        let mut client = peer;
        for value in headers.get_all(FORWARDED_FOR).iter().rev() {
            for hop in value.to_str().unwrap_or_default().rsplit(',') {
                let Some(address) = parse(hop.trim()) else {
                    return client;
                };
                client = address;
                if !self.contain(client) {
                    return client;
                }
            }
        }
        client
    }
}

/// An address with or without a port.
fn parse(hop: &str) -> Option<IpAddr> {
    let with_port = || hop.parse::<SocketAddr>().ok().map(|found| found.ip());
    let bare = hop.trim_start_matches('[').trim_end_matches(']');
    let address = bare.parse().ok().or_else(with_port)?;
    Some(address.to_canonical())
}

/// The client uses TLS to a trusted proxy.
pub(crate) fn is_https(headers: &HeaderMap) -> bool {
    let scheme = headers.get(FORWARDED_PROTO);
    scheme.is_some_and(|scheme| scheme.as_bytes().eq_ignore_ascii_case(b"https"))
}

/// The middleware of both ports: replaces the address of a trusted proxy by that of its client, and
/// removes the headers of everybody else.
pub(crate) async fn identify(
    proxies: TrustedProxies,
    mut request: Request,
    next: Next,
) -> Response {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    let peer = peer.map(|info| info.0.ip());
    match peer {
        Some(peer) if proxies.contain(peer) => {
            let client = proxies.client(request.headers(), peer);
            let address = ConnectInfo(SocketAddr::new(client, 0));
            request.extensions_mut().insert(address);
        }
        _ => {
            for header in [CLIENT_ID, FORWARDED_FOR, FORWARDED_PROTO] {
                request.headers_mut().remove(header);
            }
        }
    }
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use axum::{Router, body::Body, middleware::from_fn, routing::get};
    use tower::ServiceExt as _;

    use super::*;

    /// The address and the `client-id` that a handler sees.
    async fn seen(peer: &str, headers: &[(&str, &str)]) -> String {
        let networks = ["10.0.0.0/8", "fd00::/8"].map(|network| network.parse().unwrap());
        let proxies = TrustedProxies::new(&networks);
        let handler = |request: Request| async move {
            let address = request.extensions().get::<ConnectInfo<SocketAddr>>();
            let address = address.unwrap().0.ip();
            let id = request.headers().get(CLIENT_ID);
            format!("{address} {}", id.map_or("-", |id| id.to_str().unwrap()))
        };
        let router = Router::new().route("/", get(handler)).layer(from_fn(
            move |request: Request, next: Next| identify(proxies.clone(), request, next),
        ));
        let mut request = Request::new(Body::empty());
        let peer = SocketAddr::new(peer.parse().unwrap(), 5000);
        request.extensions_mut().insert(ConnectInfo(peer));
        for (name, value) in headers {
            let name: HeaderName = name.parse().unwrap();
            request.headers_mut().append(name, value.parse().unwrap());
        }
        let response = router.oneshot(request).await.unwrap();
        let body = axum::body::to_bytes(response.into_body(), 1000).await;
        String::from_utf8(body.unwrap().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn headers_count_from_a_trusted_proxy_only() {
        let headers = [("x-forwarded-for", "203.0.113.7"), ("client-id", "a")];
        assert_eq!(seen("10.1.2.3", &headers).await, "203.0.113.7 a");
        assert_eq!(seen("192.0.2.1", &headers).await, "192.0.2.1 -");
        assert_eq!(seen("::ffff:10.1.2.3", &headers).await, "203.0.113.7 a");
        assert_eq!(seen("fd00::1", &[]).await, "fd00::1 -");
    }

    #[tokio::test]
    async fn client_is_the_last_address_that_is_not_a_proxy() {
        for (forwarded, expected) in [
            // The client wrote the first address.
            ("198.51.100.1, 203.0.113.7", "203.0.113.7"),
            ("203.0.113.7, 10.9.9.9,fd00::2", "203.0.113.7"),
            ("[2001:db8::5]:443", "2001:db8::5"),
            ("203.0.113.7:1234", "203.0.113.7"),
            ("10.0.0.4, 10.0.0.5", "10.0.0.4"),
            // Nothing before an invalid address can be believed.
            ("203.0.113.7, unknown, 10.0.0.5", "10.0.0.5"),
            ("unknown", "10.1.2.3"),
            ("", "10.1.2.3"),
        ] {
            let found = seen("10.1.2.3", &[("x-forwarded-for", forwarded)]).await;
            assert_eq!(found, format!("{expected} -"), "{forwarded}");
        }
        let lines = [
            ("x-forwarded-for", "198.51.100.1"),
            ("x-forwarded-for", "203.0.113.7"),
        ];
        assert_eq!(seen("10.1.2.3", &lines).await, "203.0.113.7 -");
    }
}
