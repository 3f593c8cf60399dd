//! Refuses requests that a page of another origin makes a browser send.
//!
//! A page can reach a server on the loopback address of its visitor in two ways: by a request to
//! that address (the browser then sends the page's `Origin`), and by a name of the page's owner
//! that resolves to that address (DNS rebinding; the browser then sends that name as `Host`). The
//! check of both headers precedes everything else on both ports.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use axum::{extract::Request, middleware::Next, response::Response};
use http::{
    HeaderMap, HeaderName, Method, StatusCode,
    header::{CONTENT_TYPE, HOST, ORIGIN},
    uri::Authority,
};

use super::refused::grpc_response;
use crate::{server::network::ConnectionState, services::status};

/// For probes; it has no content.
const LIVENESS: &str = "/livez";
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The names that requests may use for this server, and the origins of other pages.
#[derive(Debug, Clone)]
pub(crate) struct Allowed(Arc<Names>);

#[derive(Debug)]
struct Names {
    /// In lower case; `*` for all.
    hosts: Vec<String>,
    /// `*` for all.
    origins: Vec<String>,
}

/// The reason of a refused request.
#[derive(Debug, PartialEq, Eq)]
enum Refusal {
    Host(String),
    Origin(String),
    CrossSite,
}

impl Allowed {
    /// Allows the hosts and origins of the settings, in addition to addresses and `localhost`.
    pub(crate) fn new(hosts: &[String], origins: &[String]) -> Self {
        Self(Arc::new(Names {
            hosts: hosts.iter().map(|host| host.to_ascii_lowercase()).collect(),
            origins: origins.to_vec(),
        }))
    }

    fn check(&self, request: &Request) -> Result<(), Refusal> {
        if request.uri().path() == LIVENESS {
            return Ok(());
        }
        let headers = request.headers();
        let host = host_of(request);
        if let Some(host) = &host
            && !self.allows_host(host)
        {
            return Err(Refusal::Host(host.clone()));
        }
        match text(headers, &ORIGIN) {
            Some(origin) if self.0.allows(&origin) => Ok(()),
            Some(origin) => match is_foreign(request) {
                true => Err(Refusal::Origin(origin)),
                false => Ok(()),
            },
            None => {
                let is_safe = matches!(
                    *request.method(),
                    Method::GET | Method::HEAD | Method::OPTIONS
                );
                let site = text(headers, &SEC_FETCH_SITE);
                match site.as_deref() {
                    Some("cross-site") if !is_safe => Err(Refusal::CrossSite),
                    _ => Ok(()),
                }
            }
        }
    }

    /// A name that is not listed may be one that an attacker controls; an address cannot be.
    fn allows_host(&self, host: &str) -> bool {
        let name = name_of(host);
        let is_address = name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
        is_address
            || name == "localhost"
            || self.0.hosts.iter().any(|allowed| {
                allowed == "*" || *allowed == name || *allowed == host.to_ascii_lowercase()
            })
    }
}

impl Names {
    fn allows(&self, origin: &str) -> bool {
        let mut listed = self.origins.iter();
        listed.any(|allowed| allowed == "*" || allowed == origin)
    }
}

/// The authority that the client named.
fn host_of(request: &Request) -> Option<String> {
    let authority = request.uri().authority();
    authority
        .map(|authority| authority.as_str().to_owned())
        .or_else(|| text(request.headers(), &HOST))
}

/// The origin has the name and the port of the server.
fn is_own(origin: &str, host: &str, is_tls: bool) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else {
        return false;
    };
    let port = match scheme {
        // Everybody on the way could have changed such a page.
        "http" if is_tls => return false,
        // Without TLS here, a proxy may have ended it.
        "http" => ":80",
        "https" => ":443",
        _ => return false,
    };
    let plain = |text: &str| text.strip_suffix(port).unwrap_or(text).to_ascii_lowercase();
    plain(authority) == plain(host)
}

/// A page of another origin sent the request.
pub(crate) fn is_foreign(request: &Request) -> bool {
    let connection = request.extensions().get::<ConnectionState>();
    let is_tls = connection.is_some_and(|connection| connection.is_tls);
    match (text(request.headers(), &ORIGIN), host_of(request)) {
        (None, _) => false,
        (Some(origin), Some(host)) => !is_own(&origin, &host, is_tls),
        (Some(_), None) => true,
    }
}

/// The host of an authority without its port, in lower case.
fn name_of(host: &str) -> String {
    let name = match host.parse::<SocketAddr>() {
        Ok(address) => return address.ip().to_string(),
        Err(_) => host
            .parse::<Authority>()
            .map(|parsed| parsed.host().to_owned()),
    };
    // A trailing dot marks a fully qualified name.
    let name = name.unwrap_or_default().to_ascii_lowercase();
    name.strip_suffix('.').unwrap_or(&name).to_owned()
}

fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let value = headers.get(name)?;
    Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
}

/// The middleware of both ports.
pub(crate) async fn check(allowed: Allowed, request: Request, next: Next) -> Response {
    match allowed.check(&request) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.response(request.headers()),
    }
}

impl Refusal {
    fn response(&self, headers: &HeaderMap) -> Response {
        let (code, reason, message) = match self {
            Refusal::Host(host) => (
                StatusCode::MISDIRECTED_REQUEST,
                "HOST_NOT_ALLOWED",
                format!(
                    "this server is not called {host:?}; use its address, or add the name to the setting allowed_hosts"
                ),
            ),
            Refusal::Origin(origin) => (
                StatusCode::FORBIDDEN,
                "ORIGIN_NOT_ALLOWED",
                format!(
                    "pages of {origin:?} may not use this server; add the origin to the setting cors_origins"
                ),
            ),
            Refusal::CrossSite => (
                StatusCode::FORBIDDEN,
                "ORIGIN_NOT_ALLOWED",
                "requests of pages of other sites need an allowed Origin (cors_origins)".to_owned(),
            ),
        };
        let refused = status::not_allowed(reason, &message);
        grpc_response(&refused, headers.get(CONTENT_TYPE)).unwrap_or_else(|| {
            let mut response = Response::new((message + "\n").into());
            *response.status_mut() = code;
            response
        })
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn checked(
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        hosts: &[&str],
        origins: &[&str],
    ) -> Result<(), Refusal> {
        let owned = |names: &[&str]| {
            names
                .iter()
                .map(|name| (*name).to_owned())
                .collect::<Vec<_>>()
        };
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Allowed::new(&owned(hosts), &owned(origins)).check(&request.body(Body::empty()).unwrap())
    }

    #[test]
    fn only_addresses_localhost_and_listed_names_are_hosts() {
        for host in [
            "127.0.0.1:50051",
            "127.0.0.1",
            "[::1]:50052",
            "[::1]",
            "10.1.2.3:80",
            "localhost",
            "LOCALHOST:50052",
            "localhost.",
            "Visage.example.org",
            "visage.example.org:8443",
            "other.test:9",
        ] {
            let hosts = ["visage.example.org", "other.test:9"];
            assert_eq!(
                checked("GET", "/", &[("host", host)], &hosts, &[]),
                Ok(()),
                "{host}"
            );
        }
        for host in [
            "evil.example:50051",
            "evil.example",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "1.2.3.4.5",
            "other.test:10",
            "",
            "a b",
            "user@127.0.0.1",
        ] {
            let refused = checked("GET", "/metrics", &[("host", host)], &["other.test:9"], &[]);
            let expected = (host != "user@127.0.0.1").then(|| Refusal::Host(host.to_owned()));
            assert_eq!(refused.err(), expected, "{host}");
        }
        assert_eq!(
            checked("GET", "/", &[("host", "evil.example")], &["*"], &[]),
            Ok(())
        );
        assert_eq!(
            checked("GET", "/livez", &[("host", "evil.example")], &[], &[]),
            Ok(())
        );
        // HTTP/1.0 and some HTTP/2 clients, but no browser.
        assert_eq!(checked("POST", "/v2", &[], &[], &[]), Ok(()));
    }

    #[test]
    fn authority_of_http2_takes_precedence() {
        let refused = checked(
            "POST",
            "http://evil.example/x",
            &[("host", "localhost")],
            &[],
            &[],
        );
        assert_eq!(refused, Err(Refusal::Host("evil.example".to_owned())));
    }

    #[test]
    fn origin_is_the_own_one_or_listed() {
        let host = ("host", "localhost:50052");
        let ask = |origin: &str, origins: &[&str]| {
            checked(
                "POST",
                "/predict",
                &[host, ("origin", origin)],
                &[],
                origins,
            )
        };
        assert_eq!(ask("http://localhost:50052", &[]), Ok(()));
        assert_eq!(ask("https://app.example", &["https://app.example"]), Ok(()));
        assert_eq!(ask("https://app.example", &["*"]), Ok(()));
        for origin in [
            "http://localhost",
            "http://localhost:50051",
            "https://evil.example",
            "https://localhost:50052.evil.example",
            "null",
            "file://",
        ] {
            assert_eq!(ask(origin, &[]), Err(Refusal::Origin(origin.to_owned())));
        }
        let proxied = [
            ("host", "visage.example.org"),
            ("origin", "https://visage.example.org:443"),
        ];
        assert_eq!(
            checked("POST", "/", &proxied, &["visage.example.org"], &[]),
            Ok(())
        );
    }

    #[test]
    fn pages_of_allowed_origins_are_foreign() {
        let foreign_to = |is_tls: bool, headers: &[(&str, &str)]| {
            let connection = ConnectionState {
                is_tls,
                ..ConnectionState::default()
            };
            let mut request = Request::builder().uri("/predict").extension(connection);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            is_foreign(&request.body(Body::empty()).unwrap())
        };
        let foreign = |headers: &[(&str, &str)]| foreign_to(false, headers);
        let host = ("host", "visage.example.org");
        assert!(!foreign(&[host]));
        assert!(!foreign(&[host, ("origin", "https://visage.example.org")]));
        assert!(foreign(&[host, ("origin", "https://app.example.org")]));
        assert!(foreign(&[
            host,
            ("origin", "https://visage.example.org:8443")
        ]));
        assert!(foreign(&[("origin", "https://visage.example.org")]));
        let plain = [host, ("origin", "http://visage.example.org")];
        assert!(!foreign(&plain));
        assert!(foreign_to(true, &plain));
    }

    #[test]
    fn cross_site_request_without_an_origin_may_only_read() {
        let headers = [("host", "127.0.0.1"), ("sec-fetch-site", "cross-site")];
        assert_eq!(
            checked("POST", "/v2", &headers, &[], &[]),
            Err(Refusal::CrossSite)
        );
        assert_eq!(checked("GET", "/", &headers, &[], &[]), Ok(()));
        let same = [("host", "127.0.0.1"), ("sec-fetch-site", "same-origin")];
        assert_eq!(checked("POST", "/v2", &same, &[], &[]), Ok(()));
    }
}
