//! Finds the identity of a credential.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use arc_swap::ArcSwap;
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer as _, X509Certificate},
};

use super::{
    Identity,
    credentials::Credentials,
    oidc::Oidc,
    password::{MAX_PASSWORD, Passwords},
    refusal::{Refusal, unexpired},
    session::Sessions,
    token::{self, MAX_TOKEN, TokenHash},
    token_file::{self, TokenFileError},
};
use crate::config::AuthMethods;

/// A new session.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) id: String,
    /// Of the identity.
    pub(crate) name: String,
}

/// The accepted credentials. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Authenticator(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    methods: AuthMethods,
    file: PathBuf,
    credentials: ArcSwap<Credentials>,
    passwords: Passwords,
    sessions: Sessions,
    oidc: Option<Oidc>,
}

impl Authenticator {
    /// Reads the token file.
    ///
    /// # Errors
    /// The file exists but cannot be read or is not valid.
    pub(crate) fn open(
        methods: AuthMethods,
        file: PathBuf,
        oidc: Option<Oidc>,
    ) -> Result<Self, TokenFileError> {
        let credentials = match methods.is_off() {
            true => None,
            false => token_file::read(&file)?,
        };
        let credentials = credentials.unwrap_or_default();
        Ok(Self(Arc::new(Inner {
            methods,
            file,
            credentials: ArcSwap::from_pointee(credentials),
            passwords: Passwords::new(),
            sessions: Sessions::default(),
            oidc,
        })))
    }

    pub(crate) fn is_off(&self) -> bool {
        self.0.methods.is_off()
    }

    /// False if nobody could administer the server with a credential of the token file.
    pub(crate) fn has_admin(&self) -> bool {
        self.0.credentials.load().has_admin()
    }

    pub(crate) fn token_file(&self) -> &Path {
        &self.0.file
    }

    /// Reads the token file again, and ends the streams of credentials that it no longer has.
    ///
    /// # Errors
    /// The file is not valid; the previous contents stay in effect.
    pub(crate) fn reload(&self) -> Result<(), TokenFileError> {
        let mut new = token_file::read(&self.0.file)?.unwrap_or_default();
        new.replace(&self.0.credentials.load());
        self.0.credentials.store(Arc::new(new));
        Ok(())
    }

    /// The keys of the OpenID Connect issuer, if that is enabled.
    pub(crate) fn oidc(&self) -> Option<&Oidc> {
        self.0.oidc.as_ref()
    }

    /// The identity of a bearer token: one of the token file, or a JSON Web Token.
    pub(crate) fn bearer(&self, text: &str) -> Result<Identity, Refusal> {
        let is_jwt = text.matches('.').count() == 2;
        if is_jwt {
            return match &self.0.oidc {
                Some(oidc) => oidc.verify(text),
                None => Err(Refusal::MethodDisabled),
            };
        }
        if !self.0.methods.tokens {
            return Err(Refusal::MethodDisabled);
        }
        if text.len() > MAX_TOKEN || !token::is_well_formed(text) {
            return Err(Refusal::Malformed);
        }
        let credentials = self.0.credentials.load();
        let known = credentials
            .token(TokenHash::of(text))
            .ok_or(Refusal::Unknown)?;
        unexpired(known.identity())
    }

    /// The identity of a client certificate (DER) that TLS has verified.
    pub(crate) fn certificate(&self, der: &[u8]) -> Result<Identity, Refusal> {
        if !self.0.methods.certificates {
            return Err(Refusal::MethodDisabled);
        }
        let (_, certificate) = X509Certificate::from_der(der).map_err(|_| Refusal::Malformed)?;
        let credentials = self.0.credentials.load();
        let known = subjects(&certificate)
            .iter()
            .find_map(|subject| credentials.certificate(subject))
            .ok_or(Refusal::UnknownCertificate)?;
        let end = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0);
        let end = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(end);
        unexpired(known.identity().until(end))
    }

    /// Starts a session for the user with this password.
    ///
    /// # Errors
    /// [`Refusal::Unknown`], for the name as for the password; [`Refusal::Busy`] if too many logins
    /// wait.
    pub(crate) async fn log_in(&self, name: &str, password: String) -> Result<Started, Refusal> {
        if !self.0.methods.tokens {
            return Err(Refusal::MethodDisabled);
        }
        if password.len() > MAX_PASSWORD {
            return Err(Refusal::Unknown);
        }
        let hash = {
            let credentials = self.0.credentials.load();
            credentials.user(name).map(|(hash, _)| hash.clone())
        };
        if !self.0.passwords.check(hash.clone(), password).await? {
            return Err(Refusal::Unknown);
        }
        // The file may have changed in the meantime.
        let credentials = self.0.credentials.load();
        match credentials.user(name) {
            Some((current, known)) if Some(current) == hash.as_ref() => {
                self.start_session(known.identity())
            }
            _ => Err(Refusal::Unknown),
        }
    }

    /// Starts a session with the rights of a bearer token.
    pub(crate) fn log_in_with_token(&self, text: &str) -> Result<Started, Refusal> {
        self.start_session(self.bearer(text)?)
    }

    fn start_session(&self, identity: Identity) -> Result<Started, Refusal> {
        let name = identity.name().to_owned();
        let id = self.0.sessions.start(identity)?;
        Ok(Started { id, name })
    }

    /// The identity of a session.
    pub(crate) fn session(&self, id: &str) -> Result<Identity, Refusal> {
        self.0.sessions.find(id)
    }

    pub(crate) fn log_out(&self, id: &str) {
        self.0.sessions.end(id);
    }
}

/// The subjects of the token file that a certificate matches. A name without a prefix is a DNS name
/// or, in a certificate without alternative names, the common name (RFC 9525, section 2).
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "other kinds of names cannot be in the token file"
)]
fn subjects(certificate: &X509Certificate<'_>) -> Vec<String> {
    let mut subjects = Vec::new();
    let alternatives = certificate.subject_alternative_name().ok().flatten();
    let has_alternatives = alternatives.is_some();
    for name in alternatives
        .iter()
        .flat_map(|found| &found.value.general_names)
    {
        match name {
            GeneralName::DNSName(name) => {
                subjects.extend([format!("dns:{name}"), (*name).to_owned()]);
            }
            GeneralName::URI(uri) => subjects.push(format!("uri:{uri}")),
            GeneralName::RFC822Name(address) => subjects.push(format!("email:{address}")),
            _ => {}
        }
    }
    for name in certificate.subject().iter_common_name() {
        if let Ok(name) = name.as_str() {
            subjects.push(format!("cn:{name}"));
            if !has_alternatives {
                subjects.push(name.to_owned());
            }
        }
    }
    subjects
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    fn subjects_of(common_name: &str, alternatives: Vec<SanType>) -> Vec<String> {
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, common_name);
        params.subject_alt_names = alternatives;
        let key = KeyPair::generate().unwrap();
        let der = params.self_signed(&key).unwrap().der().to_vec();
        subjects(&X509Certificate::from_der(&der).unwrap().1)
    }

    #[test]
    fn kinds_of_names_are_distinguished() {
        assert_eq!(subjects_of("admin", Vec::new()), ["cn:admin", "admin"]);
        let alternatives = vec![
            SanType::DnsName("app.example.org".try_into().unwrap()),
            SanType::URI("spiffe://example.org/app".try_into().unwrap()),
            SanType::Rfc822Name("ada@example.org".try_into().unwrap()),
        ];
        let expected = [
            "dns:app.example.org",
            "app.example.org",
            "uri:spiffe://example.org/app",
            "email:ada@example.org",
            "cn:admin",
        ];
        assert_eq!(subjects_of("admin", alternatives), expected);
    }
}
