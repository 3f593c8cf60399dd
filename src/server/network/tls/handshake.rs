use std::{
    fmt, io,
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig, server::TlsStream};
use tokio_util::sync::CancellationToken;

use super::{
    TlsError, TlsFiles,
    files::{Checked, Contents},
};
use crate::{server::network::protocol::Protocols, telemetry::metrics};

/// Certificates are renewed earlier than this before their end.
const EXPIRES_SOON: Duration = Duration::from_secs(7 * 24 * 3600);

/// The TLS of both ports; new connections use the latest configuration. Cheap to clone.
#[derive(Clone)]
pub(in crate::server) struct Tls {
    pub(super) files: Arc<TlsFiles>,
    current: Arc<ArcSwap<Current>>,
}

struct Current {
    grpc: Arc<ServerConfig>,
    http: Arc<ServerConfig>,
    digest: [u8; 32],
    /// Of the authorities of clients.
    authorities: [u8; 32],
    authorities_changed: CancellationToken,
}

impl Tls {
    /// Reads and checks the files.
    ///
    /// # Errors
    /// Files that cannot be used.
    pub(in crate::server) async fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let contents = files.read().await?;
        files.warn_of_readable_key();
        let current = Current::new(files.check(&contents)?, &contents);
        Ok(Self {
            files: Arc::new(files),
            current: Arc::new(ArcSwap::from_pointee(current)),
        })
    }

    /// Replaces the configuration for further connections. Connections with a client certificate
    /// are closed if the authorities differ.
    pub(super) fn replace(&self, checked: Checked, contents: &Contents) {
        let mut new = Current::new(checked, contents);
        let previous = self.current.load_full();
        let is_same = previous.authorities == new.authorities;
        if is_same {
            new.authorities_changed = previous.authorities_changed.clone();
        }
        self.current.store(Arc::new(new));
        if !is_same {
            previous.authorities_changed.cancel();
        }
    }

    /// The digest of the files in use.
    pub(super) fn digest(&self) -> [u8; 32] {
        self.current.load().digest
    }

    /// Returns the stream, and a token that is cancelled when the authorities of clients change.
    /// The caller limits the time.
    ///
    /// # Errors
    /// A client that does not speak TLS, shares no version or protocol with the server, or whose
    /// certificate is refused.
    pub(in crate::server::network) async fn accept(
        &self,
        stream: TcpStream,
        protocols: Protocols,
    ) -> io::Result<(TlsStream<TcpStream>, CancellationToken)> {
        let current = self.current.load_full();
        let config = match protocols {
            Protocols::Http1 => Arc::clone(&current.http),
            Protocols::Http1AndHttp2 => Arc::clone(&current.grpc),
        };
        let stream = TlsAcceptor::from(config).accept(stream).await?;
        Ok((stream, current.authorities_changed.clone()))
    }
}

impl Current {
    fn new(checked: Checked, contents: &Contents) -> Self {
        let Checked { config, expires } = checked;
        metrics::certificate_expiry(expires);
        let left = expires.duration_since(SystemTime::now());
        match left {
            Ok(left) if left > EXPIRES_SOON => {}
            Ok(left) => tracing::warn!(
                hours = left.as_secs() / 3600,
                "the certificate of tls_cert expires soon; replace the file"
            ),
            Err(_) => tracing::warn!(
                "the certificate of tls_cert has expired, so clients refuse it; replace the file"
            ),
        }
        let with_protocols = |names: &[&[u8]]| {
            let mut config = config.clone();
            config.alpn_protocols = names.iter().map(|name| name.to_vec()).collect();
            Arc::new(config)
        };
        Self {
            grpc: with_protocols(&[b"h2", b"http/1.1"]),
            http: with_protocols(&[b"http/1.1"]),
            digest: contents.digest(),
            authorities: contents.authorities_digest(),
            authorities_changed: CancellationToken::new(),
        }
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("files", &self.files).finish()
    }
}
