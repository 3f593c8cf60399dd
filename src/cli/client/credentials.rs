//! Credentials of the client, and the TLS of its connections.

use std::{fmt, net::IpAddr, os::unix::fs::PermissionsExt as _, path::Path, sync::Arc};

use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tokio_rustls::rustls::{self, RootCertStore, crypto::ring};
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::Interceptor,
    transport::{Certificate, ClientTlsConfig, Identity},
};

use crate::{
    cli::error::Error,
    config::{ClientConfig, Token, TokenSource},
};

/// The contents of the files of a [`ClientConfig`].
#[derive(Default)]
pub(crate) struct Credentials {
    /// PEM.
    ca: Option<Vec<u8>>,
    identity: Option<PemIdentity>,
    token: Option<Token>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let has = |is_set: bool| if is_set { "set" } else { "none" };
        f.debug_struct("Credentials")
            .field("ca", &has(self.ca.is_some()))
            .field("identity", &has(self.identity.is_some()))
            .field("token", &has(self.token.is_some()))
            .finish()
    }
}

/// A certificate and its key in PEM.
struct PemIdentity {
    cert: Vec<u8>,
    key: Vec<u8>,
}

impl Credentials {
    /// Reads the files. `warn` reports files that other users can read.
    ///
    /// # Errors
    /// A file that cannot be read, and a token file without a token.
    pub(crate) fn load(config: &ClientConfig, warn: impl Fn(&str)) -> Result<Self, Error> {
        let read = |path: &Path| fs_err::read(path).map_err(Error::File);
        let identity = match &config.identity {
            None => None,
            Some(files) => {
                warn_of_readable(&files.key, &warn);
                Some(PemIdentity {
                    cert: read(&files.cert)?,
                    key: read(&files.key)?,
                })
            }
        };
        let token = match &config.token {
            TokenSource::None => None,
            TokenSource::Variable(token) => Some(token.clone()),
            TokenSource::File(path) => {
                warn_of_readable(path, &warn);
                let text = fs_err::read_to_string(path).map_err(Error::File)?;
                Some(Token::parse(&text).ok_or_else(|| {
                    Error::Usage(format!(
                        "the token file {} must contain one token; create one with `visage token new` on the server",
                        path.display()
                    ))
                })?)
            }
        };
        Ok(Self {
            ca: config.ca.as_deref().map(read).transpose()?,
            identity,
            token,
        })
    }

    /// The value of the header `authorization` for a server.
    ///
    /// # Errors
    /// A server that the token would reach in plain text over a network.
    pub(crate) fn authorization(&self, server: &str) -> Result<Option<String>, Error> {
        let Some(token) = &self.token else {
            return Ok(None);
        };
        if is_exposed(server) {
            return Err(Error::Usage(format!(
                "a token must not be sent to {server} in plain text; use https://, or a tunnel to a loopback address"
            )));
        }
        Ok(Some(format!("Bearer {}", token.secret())))
    }

    /// For the gRPC API at a host.
    pub(super) fn grpc_tls(&self, host: &str) -> ClientTlsConfig {
        let tls = ClientTlsConfig::new().domain_name(host.trim_matches(['[', ']']));
        let tls = match &self.ca {
            Some(ca) => tls.ca_certificate(Certificate::from_pem(ca)),
            None => tls.with_native_roots(),
        };
        match &self.identity {
            Some(PemIdentity { cert, key }) => tls.identity(Identity::from_pem(cert, key)),
            None => tls,
        }
    }

    /// For HTTP/1.1.
    ///
    /// # Errors
    /// Files without the expected PEM sections.
    pub(super) fn rustls(&self) -> Result<rustls::ClientConfig, Error> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(self.authorities()?);
        let builder =
            rustls::ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
                .with_safe_default_protocol_versions()
                .map_err(|error| Error::Usage(format!("failed to set up TLS: {error}")))?
                .with_root_certificates(roots);
        match self.identity()? {
            None => Ok(builder.with_no_client_auth()),
            Some((chain, key)) => builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| Error::Usage(format!("failed to use --cert with --key: {error}"))),
        }
    }

    /// The certificates of `--ca`, or those of the system.
    pub(super) fn authorities(&self) -> Result<Vec<CertificateDer<'static>>, Error> {
        match &self.ca {
            Some(pem) => certificates("--ca", pem),
            None => Ok(rustls_native_certs::load_native_certs().certs),
        }
    }

    /// Certificate and key in PEM.
    pub(super) fn pem_identity(&self) -> Option<(&[u8], &[u8])> {
        let PemIdentity { cert, key } = self.identity.as_ref()?;
        Some((cert, key))
    }

    fn identity(
        &self,
    ) -> Result<Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>, Error> {
        let Some(PemIdentity { cert, key }) = &self.identity else {
            return Ok(None);
        };
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| {
            Error::Usage(format!(
                "--key must be a PEM file with an unencrypted private key: {error}"
            ))
        })?;
        Ok(Some((certificates("--cert", cert)?, key)))
    }

    /// Refuses files without certificates, which the transport would report less clearly.
    ///
    /// # Errors
    /// Files without the expected PEM sections.
    pub(super) fn check(&self) -> Result<(), Error> {
        if let Some(pem) = &self.ca {
            certificates("--ca", pem)?;
        }
        self.identity().map(drop)
    }
}

fn certificates(flag: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = parsed.unwrap_or_default();
    if found.is_empty() {
        return Err(Error::Usage(format!(
            "{flag} must be a PEM file with at least one certificate"
        )));
    }
    Ok(found)
}

/// Returns whether what is sent to the server can be read on a network.
fn is_exposed(server: &str) -> bool {
    let Some(authority) = server.strip_prefix("http://") else {
        return false;
    };
    let authority = authority.split('/').next().unwrap_or_default();
    let host = authority
        .rsplit_once(':')
        .map_or(authority, |(host, _)| host);
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host != "localhost" && !address.is_ok_and(|address| address.to_canonical().is_loopback())
}

fn warn_of_readable(path: &Path, warn: &impl Fn(&str)) {
    let mode = fs_err::metadata(path).map(|found| found.permissions().mode());
    if mode.is_ok_and(|mode| mode & 0o044 != 0) {
        warn(&format!(
            "warning: other users can read {path}; restrict it with `chmod 600 {path}`",
            path = path.display()
        ));
    }
}

/// Adds the token to each call.
#[derive(Clone, Debug)]
pub(crate) struct Authorization(Option<MetadataValue<Ascii>>);

impl Authorization {
    /// # Errors
    /// As for [`Credentials::authorization`].
    pub(super) fn new(credentials: &Credentials, server: &str) -> Result<Self, Error> {
        let value = credentials.authorization(server)?;
        let value = value.map(|value| MetadataValue::try_from(value.as_str()));
        let value = value.transpose().map_err(|_| {
            Error::Usage("the token must consist of visible ASCII characters".to_owned())
        })?;
        Ok(Self(value.map(|mut value| {
            value.set_sensitive(true);
            value
        })))
    }
}

impl Interceptor for Authorization {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request
                .metadata_mut()
                .insert("authorization", value.clone());
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_not_sent_in_plain_text_over_a_network() {
        let credentials = Credentials {
            token: Token::parse("vsg_hidden"),
            ..Credentials::default()
        };
        for server in [
            "https://visage.example.org:50051",
            "http://127.0.0.1:50051",
            "http://127.9.9.9:50051",
            "http://[::1]:50051",
            "http://localhost:50052/",
            "unix:/run/visage.sock",
        ] {
            let sent = credentials.authorization(server).unwrap();
            assert_eq!(sent.as_deref(), Some("Bearer vsg_hidden"), "{server}");
        }
        for server in [
            "http://visage.example.org:50051",
            "http://10.0.0.1:50051",
            "http://localhost.example.org:1",
            "http://127.0.0.1.example.org:1",
        ] {
            let refused = credentials.authorization(server).unwrap_err().to_string();
            assert!(refused.contains("use https://"), "{refused}");
            assert!(!refused.contains("hidden"), "{refused}");
            let without = Credentials::default().authorization(server);
            assert_eq!(without.unwrap(), None);
        }
    }

    #[test]
    fn files_of_credentials_are_checked_and_readable_ones_reported() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        let load = |text: &str, mode: u32| {
            fs_err::write(&path, text).unwrap();
            fs_err::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let config = ClientConfig {
                server: "https://a:1".to_owned(),
                ca: None,
                identity: None,
                token: TokenSource::File(path.clone()),
                color: false,
            };
            let warnings = std::cell::RefCell::new(Vec::new());
            let warn = |text: &str| warnings.borrow_mut().push(text.to_owned());
            let loaded = Credentials::load(&config, warn);
            (loaded, warnings.into_inner())
        };
        let (loaded, warnings) = load("vsg_a\n", 0o600);
        let sent = loaded.unwrap().authorization("https://a:1").unwrap();
        assert_eq!(sent.as_deref(), Some("Bearer vsg_a"));
        assert!(warnings.is_empty());
        let (_, warnings) = load("vsg_a", 0o644);
        assert!(warnings[0].contains("chmod 600"), "{warnings:?}");
        let (loaded, _) = load("two words", 0o600);
        assert!(loaded.is_err());
    }
}
