//! Requests to the HTTP port.

use std::{sync::Arc, time::Duration};

use tokio::{io::AsyncRead, io::AsyncWrite, net::TcpStream};
use tokio_rustls::TlsConnector;
use ureq::{
    Agent,
    http::header::{AUTHORIZATION, HeaderValue},
    middleware::MiddlewareNext,
    tls::{self, ClientCert, RootCerts, TlsConfig},
};

use super::{Credentials, tls_failure};
use crate::cli::error::Error;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// An HTTP client for requests below `base`, with the credentials.
///
/// # Errors
/// A `base` that a token must not be sent to, and files without the expected PEM sections.
pub(crate) fn agent(
    credentials: &Credentials,
    base: &str,
    response_timeout: Duration,
) -> Result<Agent, Error> {
    let mut builder = Agent::config_builder()
        .timeout_connect(Some(CONNECT_TIMEOUT.min(response_timeout)))
        .timeout_recv_response(Some(response_timeout))
        // Otherwise a redirect could lead a token elsewhere.
        .max_redirects(0)
        .http_status_as_error(false);
    if base.starts_with("https://") {
        builder = builder.tls_config(tls(credentials)?);
    }
    if let Some(value) = credentials.authorization(base)? {
        let mut value = HeaderValue::from_str(&value).map_err(|_| {
            Error::Usage("the token must consist of visible ASCII characters".to_owned())
        })?;
        value.set_sensitive(true);
        // A proxy would see the token of a request to a loopback address.
        if base.starts_with("http://") {
            builder = builder.proxy(None);
        }
        builder = builder.middleware(
            move |mut request: ureq::http::Request<ureq::SendBody<'_>>,
                  next: MiddlewareNext<'_>| {
                request.headers_mut().insert(AUTHORIZATION, value.clone());
                next.handle(request)
            },
        );
    }
    Ok(builder.build().into())
}

fn tls(credentials: &Credentials) -> Result<TlsConfig, Error> {
    let authorities = credentials.authorities()?;
    let roots = authorities
        .iter()
        .map(|certificate| tls::Certificate::from_der(certificate).to_owned());
    let roots: RootCerts = roots.collect::<Vec<_>>().into();
    let mut builder = TlsConfig::builder().root_certs(roots);
    if let Some((chain, key)) = credentials.pem_identity() {
        let chain: Vec<_> = tls::parse_pem(chain)
            .filter_map(|item| {
                if let Ok(tls::PemItem::Certificate(certificate)) = item {
                    Some(certificate)
                } else {
                    None
                }
            })
            .collect();
        let key = tls::PrivateKey::from_pem(key).map_err(|error| {
            Error::Usage(format!(
                "--key must be a PEM file with an unencrypted private key: {error}"
            ))
        })?;
        builder = builder.client_cert(Some(ClientCert::new_with_certs(&chain, key)));
    }
    Ok(builder.build())
}

/// A connection to `https://host:port` or `http://host:port`; otherwise the reason in words.
pub(crate) async fn connect(
    credentials: &Credentials,
    base: &str,
) -> Result<Box<dyn Stream>, String> {
    let (scheme, authority) = base.split_once("://").unwrap_or(("http", base));
    let stream = TcpStream::connect(authority)
        .await
        .map_err(|error| error.to_string())?;
    if scheme == "http" {
        return Ok(Box::new(stream));
    }
    let host = authority
        .rsplit_once(':')
        .map_or(authority, |(host, _)| host);
    let name = rustls_pki_types::ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
        .map_err(|error| error.to_string())?;
    let config = credentials.rustls().map_err(|error| error.to_string())?;
    let stream = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await;
    let stream = stream
        .map_err(|error| tls_failure::explain(base, &error).unwrap_or_else(|| error.to_string()))?;
    Ok(Box::new(stream))
}

/// A stream of bytes.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}
