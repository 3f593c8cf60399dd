//! Failures of TLS as sentences with a remedy.

use std::{error::Error, io};

use tokio_rustls::rustls::{self, AlertDescription, CertificateError};

/// The cause of a failed connection and its remedy, if TLS is the cause.
pub(crate) fn explain(server: &str, error: &(dyn Error + 'static)) -> Option<String> {
    let mut chain = Some(error);
    while let Some(found) = chain {
        if let Some(failure) = rustls_error(found) {
            return Some(sentence(server, failure));
        }
        chain = found.source();
    }
    is_plain_text_to_tls(server, error).then(|| {
        format!(
            "the server closed the connection as one that requires TLS does; use https:// instead of {server}"
        )
    })
}

fn rustls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    if let Some(found) = error.downcast_ref::<rustls::Error>() {
        return Some(found);
    }
    // The source of an `io::Error` is that of the error inside it.
    let inner = error.downcast_ref::<io::Error>()?.get_ref()?;
    rustls_error(inner)
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "errors without a remedy of their own are printed as they are"
)]
fn sentence(server: &str, error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(invalid) => certificate_sentence(server, invalid),
        rustls::Error::InvalidMessage(_) => {
            format!("{server} does not speak TLS; use http:// if it is meant to serve plain text")
        }
        rustls::Error::AlertReceived(alert) => match alert {
            AlertDescription::CertificateRequired | AlertDescription::HandshakeFailure => {
                "the server requires a client certificate; name it with --cert and --key".to_owned()
            }
            AlertDescription::BadCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateUnknown
            | AlertDescription::DecryptError
            | AlertDescription::AccessDenied => format!(
                "the server refused the client certificate ({alert:?}); use one that its `tls_client_ca` signed and that is valid"
            ),
            other => format!("the server refused the TLS connection ({other:?})"),
        },
        other => format!("TLS failed: {other}"),
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "errors without a remedy of their own are printed as they are"
)]
fn certificate_sentence(server: &str, invalid: &CertificateError) -> String {
    match invalid {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "no trusted authority signed the server's certificate; name the authority's certificate with --ca FILE"
                .to_owned()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the server's certificate has expired; renew it on the server, or correct the clock of this machine"
                .to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the server's certificate is not valid yet; correct the clock of this machine or of the one that issued it"
                .to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!(
                "the server's certificate is not for the name in {server}; use a name of the certificate, or issue one with this name (subjectAltName)"
            )
        }
        other if format!("{other:?}").contains("CaUsedAsEndEntity") => {
            "the server's certificate is that of an authority; issue one for the server with basicConstraints CA:FALSE"
                .to_owned()
        }
        other => format!("the server's certificate is not valid: {other}"),
    }
}

/// A server with TLS answers the first bytes of HTTP/2 with an alert, which is not an HTTP/2 frame.
fn is_plain_text_to_tls(server: &str, error: &(dyn Error + 'static)) -> bool {
    if !server.starts_with("http://") {
        return false;
    }
    let mut chain = Some(error);
    while let Some(found) = chain {
        let text = found.to_string();
        if text.contains("frame with invalid size") || text.contains("FRAME_SIZE_ERROR") {
            return true;
        }
        chain = found.source();
    }
    false
}
