use std::{
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncReadExt as _;
use tokio_rustls::rustls::{
    self, InconsistentKeys, RootCertStore, ServerConfig,
    crypto::ring,
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::TlsError;

/// A chain of certificates has a few kB; a list of authorities some hundred.
const MAX_BYTES: u64 = 4 << 20;

/// Certificates of clients that `tls_client_ca` signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) enum ClientCertificates {
    /// Clients may have another credential instead.
    Optional,
    Required,
}

/// The files of the TLS settings.
#[derive(Debug, Clone)]
pub(in crate::server) struct TlsFiles {
    pub(in crate::server) cert: PathBuf,
    pub(in crate::server) key: PathBuf,
    pub(in crate::server) client_ca: Option<PathBuf>,
    pub(in crate::server) client_certificates: ClientCertificates,
}

/// The bytes of the files at one time.
pub(super) struct Contents {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl Contents {
    /// Equal for equal contents.
    pub(super) fn digest(&self) -> [u8; 32] {
        let mut hasher = Sha256::new();
        for bytes in [&self.cert, &self.key].into_iter().chain(&self.client_ca) {
            hasher.update((bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        }
        hasher.finalize().into()
    }

    /// Of the authorities of clients alone.
    pub(super) fn authorities_digest(&self) -> [u8; 32] {
        Sha256::digest(self.client_ca.as_deref().unwrap_or_default()).into()
    }
}

/// A checked configuration without protocols, and the end of its certificate's validity.
pub(super) struct Checked {
    pub(super) config: ServerConfig,
    pub(super) expires: SystemTime,
}

impl TlsFiles {
    /// Reads all files.
    ///
    /// # Errors
    /// [`TlsError::Read`].
    pub(super) async fn read(&self) -> Result<Contents, TlsError> {
        let client_ca = match &self.client_ca {
            Some(path) => Some(read("tls_client_ca", path).await?),
            None => None,
        };
        Ok(Contents {
            cert: read("tls_cert", &self.cert).await?,
            key: read("tls_key", &self.key).await?,
            client_ca,
        })
    }

    /// Parses the files, and checks that the key belongs to the certificate.
    ///
    /// # Errors
    /// Files without the expected PEM sections, and a key of another certificate.
    pub(super) fn check(&self, contents: &Contents) -> Result<Checked, TlsError> {
        let chain = certificates("tls_cert", &self.cert, &contents.cert)?;
        let expires = expiry(&self.cert, &chain)?;
        let key = PrivateKeyDer::from_pem_slice(&contents.key).map_err(|error| {
            let expected =
                "an unencrypted private key (PRIVATE KEY, RSA PRIVATE KEY or EC PRIVATE KEY)";
            content("tls_key", &self.key, expected, error)
        })?;
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|source| self.pair(source))?;
        let builder = match (&self.client_ca, &contents.client_ca) {
            (Some(path), Some(bytes)) => {
                builder.with_client_cert_verifier(self.verifier(path, bytes, provider)?)
            }
            _ => builder.with_no_client_auth(),
        };
        let config = builder
            .with_single_cert(chain, key)
            .map_err(|source| self.pair(source))?;
        Ok(Checked { config, expires })
    }

    fn verifier(
        &self,
        path: &Path,
        bytes: &[u8],
        provider: Arc<rustls::crypto::CryptoProvider>,
    ) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
        let expected = "certificates of authorities";
        let mut authorities = RootCertStore::empty();
        for certificate in certificates("tls_client_ca", path, bytes)? {
            authorities
                .add(certificate)
                .map_err(|error| content("tls_client_ca", path, expected, error))?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), provider);
        let verifier = match self.client_certificates {
            ClientCertificates::Optional => verifier.allow_unauthenticated(),
            ClientCertificates::Required => verifier,
        };
        verifier
            .build()
            .map_err(|error| content("tls_client_ca", path, expected, error))
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "all other errors are reported as they are"
    )]
    fn pair(&self, source: rustls::Error) -> TlsError {
        let (cert, key) = (self.cert.clone(), self.key.clone());
        match source {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                TlsError::Mismatch { cert, key }
            }
            source => TlsError::Pair { cert, key, source },
        }
    }

    /// Reports a key that every user of the machine can read.
    pub(super) fn warn_of_readable_key(&self) {
        let mode = fs_err::metadata(&self.key).map(|found| found.permissions().mode());
        if mode.is_ok_and(|mode| mode & 0o004 != 0) {
            tracing::warn!(
                tls_key = %self.key.display(),
                "every user of this machine can read the private key; restrict it with chmod 600"
            );
        }
    }
}

async fn read(setting: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    let read = async {
        let file = fs_err::tokio::File::open(path).await?;
        let mut bytes = Vec::new();
        file.take(MAX_BYTES + 1).read_to_end(&mut bytes).await?;
        if bytes.len() as u64 > MAX_BYTES {
            let text = format!("{} has more than {MAX_BYTES} bytes", path.display());
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
        }
        Ok(bytes)
    };
    read.await
        .map_err(|source| TlsError::Read { setting, source })
}

/// At least one certificate.
fn certificates(
    setting: &'static str,
    path: &Path,
    bytes: &[u8],
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let expected = "certificates (CERTIFICATE)";
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    let found = parsed.map_err(|error| content(setting, path, expected, error))?;
    if found.is_empty() {
        return Err(content(setting, path, expected, "the file has none"));
    }
    Ok(found)
}

/// The end of the validity of the server's certificate, which is the first one.
fn expiry(path: &Path, chain: &[CertificateDer<'static>]) -> Result<SystemTime, TlsError> {
    let invalid =
        |cause: &dyn std::fmt::Display| content("tls_cert", path, "an X.509 certificate", cause);
    let leaf = chain.first().ok_or_else(|| invalid(&"the file is empty"))?;
    let (_, parsed) = X509Certificate::from_der(leaf).map_err(|error| invalid(&error))?;
    let seconds = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
    Ok(UNIX_EPOCH + Duration::from_secs(seconds))
}

fn content(
    setting: &'static str,
    path: &Path,
    expected: &'static str,
    cause: impl std::fmt::Display,
) -> TlsError {
    TlsError::Content {
        setting,
        path: path.to_owned(),
        expected,
        cause: cause.to_string(),
    }
}
