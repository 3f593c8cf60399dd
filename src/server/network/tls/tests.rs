use std::{path::Path, sync::Arc};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, RootCertStore, crypto::ring},
};
use tokio_util::sync::CancellationToken;

use super::{ClientCertificates, Tls, TlsError, TlsFiles, reload::Reload};
use crate::server::network::protocol::Protocols;

/// An authority that issues certificates.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Certificate and key of `localhost` in PEM.
    fn issue(&self, purpose: ExtendedKeyUsagePurpose) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.extended_key_usages = vec![purpose];
        let certificate = params.signed_by(&key, &self.0).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

fn files(directory: &Path) -> TlsFiles {
    TlsFiles {
        cert: directory.join("cert.pem"),
        key: directory.join("key.pem"),
        client_ca: None,
        client_certificates: ClientCertificates::Optional,
    }
}

fn write(files: &TlsFiles, (cert, key): &(String, String)) {
    fs_err::write(&files.cert, cert).unwrap();
    fs_err::write(&files.key, key).unwrap();
}

fn server(authority: &Authority) -> (TempDir, TlsFiles) {
    let directory = tempfile::tempdir().unwrap();
    let files = files(directory.path());
    write(
        &files,
        &authority.issue(ExtendedKeyUsagePurpose::ServerAuth),
    );
    (directory, files)
}

/// The first certificate and the protocol that a client gets, and the certificate that the server
/// gets.
struct Seen {
    server: Vec<u8>,
    protocol: Option<Vec<u8>>,
    client: Option<Vec<u8>>,
    authorities_changed: CancellationToken,
}

async fn handshake(
    tls: &Tls,
    authority: &Authority,
    client: Option<&(String, String)>,
    protocols: Protocols,
    offered: &[&[u8]],
) -> std::io::Result<Seen> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.0.der().clone()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match client {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => {
            let cert = CertificateDer::from_pem_slice(cert.as_bytes()).unwrap();
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            builder.with_client_auth_cert(vec![cert], key).unwrap()
        }
    };
    config.alpn_protocols = offered.iter().map(|name| name.to_vec()).collect();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connecting = async {
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
    };
    let accepting = async { tls.accept(listener.accept().await?.0, protocols).await };
    let (connected, accepted) = tokio::join!(connecting, accepting);
    let ((accepted, authorities_changed), connected) = (accepted?, connected?);
    let leaf = |chain: Option<&[CertificateDer<'static>]>| Some(chain?.first()?.to_vec());
    let session = connected.get_ref().1;
    Ok(Seen {
        server: leaf(session.peer_certificates()).unwrap(),
        protocol: session.alpn_protocol().map(<[u8]>::to_vec),
        client: leaf(accepted.get_ref().1.peer_certificates()),
        authorities_changed,
    })
}

#[tokio::test]
async fn protocols_of_the_port_are_negotiated() {
    let authority = Authority::new();
    let (_directory, files) = server(&authority);
    let tls = Tls::load(files).await.unwrap();
    let both: &[&[u8]] = &[b"h2", b"http/1.1"];
    for (protocols, offered, expected) in [
        (Protocols::Http1AndHttp2, both, Some(b"h2".as_slice())),
        (Protocols::Http1, both, Some(b"http/1.1".as_slice())),
        (Protocols::Http1, &[], None),
    ] {
        let seen = handshake(&tls, &authority, None, protocols, offered).await;
        assert_eq!(seen.unwrap().protocol.as_deref(), expected);
    }
    let refused = handshake(&tls, &authority, None, Protocols::Http1, &[b"h2"]).await;
    assert!(refused.is_err());
}

#[tokio::test]
async fn client_certificates_are_optional_or_required_and_of_the_authority() {
    let (authority, clients, others) = (Authority::new(), Authority::new(), Authority::new());
    let (directory, mut files) = server(&authority);
    let path = directory.path().join("clients.pem");
    fs_err::write(&path, clients.0.pem()).unwrap();
    files.client_ca = Some(path);
    let known = clients.issue(ExtendedKeyUsagePurpose::ClientAuth);
    let unknown = others.issue(ExtendedKeyUsagePurpose::ClientAuth);
    for client_certificates in [ClientCertificates::Optional, ClientCertificates::Required] {
        let files = TlsFiles {
            client_certificates,
            ..files.clone()
        };
        let tls = Tls::load(files).await.unwrap();
        let connect =
            async |client| handshake(&tls, &authority, client, Protocols::Http1, &[]).await;
        let seen = connect(Some(&known)).await.unwrap();
        let sent = CertificateDer::from_pem_slice(known.0.as_bytes()).unwrap();
        assert_eq!(seen.client.as_deref(), Some(sent.as_ref()));
        assert!(connect(Some(&unknown)).await.is_err());
        let without = connect(None).await;
        match client_certificates {
            ClientCertificates::Optional => assert_eq!(without.unwrap().client, None),
            ClientCertificates::Required => assert!(without.is_err()),
        }
    }
}

#[tokio::test]
async fn unusable_files_are_reported_with_path_and_remedy() {
    let authority = Authority::new();
    let (directory, files) = server(&authority);
    let refusal = async |files: &TlsFiles| Tls::load(files.clone()).await.unwrap_err();
    let other = authority.issue(ExtendedKeyUsagePurpose::ServerAuth);
    let right = fs_err::read_to_string(&files.key).unwrap();
    fs_err::write(&files.key, other.1).unwrap();
    let mismatch = refusal(&files).await;
    assert!(matches!(mismatch, TlsError::Mismatch { .. }), "{mismatch}");
    fs_err::write(&files.key, "not a key").unwrap();
    let text = refusal(&files).await.to_string();
    assert!(text.contains("tls_key must be a PEM file"), "{text}");
    fs_err::write(&files.key, right).unwrap();
    let missing = directory.path().join("missing.pem");
    let text = refusal(&TlsFiles {
        cert: missing.clone(),
        ..files.clone()
    })
    .await
    .to_string();
    assert!(text.contains("failed to read tls_cert"), "{text}");
    assert!(text.contains(missing.to_str().unwrap()), "{text}");
    let empty = directory.path().join("empty.pem");
    fs_err::write(&empty, "").unwrap();
    let text = refusal(&TlsFiles {
        client_ca: Some(empty),
        ..files
    })
    .await
    .to_string();
    assert!(text.contains("tls_client_ca must be"), "{text}");
}

#[tokio::test]
async fn changed_files_are_used_and_a_bad_pair_is_refused() {
    let authority = Authority::new();
    let (_directory, files) = server(&authority);
    let tls = Tls::load(files.clone()).await.unwrap();
    let mut reload = Reload {
        tls: tls.clone(),
        refused: None,
    };
    let current = async || {
        let seen = handshake(&tls, &authority, None, Protocols::Http1, &[]).await;
        seen.unwrap().server
    };
    let first = current().await;
    let next = authority.issue(ExtendedKeyUsagePurpose::ServerAuth);
    fs_err::write(&files.cert, &next.0).unwrap();
    reload.check(false).await;
    assert!(reload.refused.is_some());
    assert_eq!(current().await, first);
    fs_err::write(&files.key, &next.1).unwrap();
    reload.check(false).await;
    assert_eq!(reload.refused, None);
    let expected = CertificateDer::from_pem_slice(next.0.as_bytes()).unwrap();
    assert_eq!(current().await, expected.to_vec());
}

#[tokio::test]
async fn change_of_the_authorities_of_clients_is_reported_to_open_connections() {
    let (authority, clients, others) = (Authority::new(), Authority::new(), Authority::new());
    let (directory, mut files) = server(&authority);
    let path = directory.path().join("clients.pem");
    fs_err::write(&path, clients.0.pem()).unwrap();
    files.client_ca = Some(path.clone());
    let tls = Tls::load(files.clone()).await.unwrap();
    let mut reload = Reload {
        tls: tls.clone(),
        refused: None,
    };
    let known = clients.issue(ExtendedKeyUsagePurpose::ClientAuth);
    let connect = async || {
        let seen = handshake(&tls, &authority, Some(&known), Protocols::Http1, &[]).await;
        seen.map(|seen| seen.authorities_changed)
    };
    let open = connect().await.unwrap();
    write(
        &files,
        &authority.issue(ExtendedKeyUsagePurpose::ServerAuth),
    );
    reload.check(false).await;
    assert!(
        !open.is_cancelled(),
        "only the server's certificate changed"
    );
    fs_err::write(&path, others.0.pem()).unwrap();
    reload.check(false).await;
    assert!(open.is_cancelled());
    assert!(connect().await.is_err());
}

#[tokio::test]
async fn expired_certificate_is_loaded() {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    let cert = params.self_signed(&key).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let files = files(directory.path());
    write(&files, &(cert.pem(), key.serialize_pem()));
    let checked = files.check(&files.read().await.unwrap()).unwrap();
    // 2021-01-01T00:00:00Z.
    let expected = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_609_459_200);
    assert_eq!(checked.expires, expected);
    // The server starts, so that it can be replaced; clients refuse it.
    assert!(Tls::load(files).await.is_ok());
}
