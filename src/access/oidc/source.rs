//! Reads the issuer's keys.

use std::{io::Read as _, path::PathBuf, time::Duration};

use fs_err as fs;
use ureq::{Agent, Proxy};

use super::keys::Keys;

const MAX_BYTES: u64 = 1 << 20;
const TIMEOUT: Duration = Duration::from_secs(5);
const DISCOVERY: &str = "/.well-known/openid-configuration";

/// The location of the keys.
#[derive(Debug, Clone)]
pub(super) enum Source {
    File(PathBuf),
    Url(String),
    /// The discovery document of the issuer has the URL.
    Discovery(String),
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum OidcError {
    #[error("failed to read {from}: {cause}")]
    Read { from: String, cause: String },
    #[error("{from} is not a set of keys (JWKS): {cause}")]
    NotKeys { from: String, cause: String },
    #[error("the discovery document {from} has no `jwks_uri`, or is of another issuer")]
    NoUri { from: String },
    #[error(
        "{url} must be an https URL, or an http URL of a loopback address; otherwise others could replace the keys"
    )]
    Insecure { url: String },
}

impl Source {
    /// # Errors
    /// A URL without TLS to another machine.
    pub(super) fn new(issuer: &str, jwks: Option<&str>) -> Result<Self, OidcError> {
        match jwks {
            Some(url) if url.contains("://") => {
                require_secure(url)?;
                Ok(Self::Url(url.to_owned()))
            }
            Some(path) => Ok(Self::File(PathBuf::from(path))),
            None => {
                require_secure(issuer)?;
                Ok(Self::Discovery(issuer.to_owned()))
            }
        }
    }

    /// Blocks for up to twice five seconds.
    pub(super) fn read(&self) -> Result<Keys, OidcError> {
        match self {
            Self::File(path) => {
                let from = path.display().to_string();
                let file = fs::File::open(path).map_err(|cause| read_error(&from, &cause))?;
                let mut json = Vec::new();
                file.take(MAX_BYTES)
                    .read_to_end(&mut json)
                    .map_err(|cause| read_error(&from, &cause))?;
                parse(&from, &json)
            }
            Self::Url(url) => parse(url, &get(url)?),
            Self::Discovery(issuer) => {
                let url = format!("{}{DISCOVERY}", issuer.trim_end_matches('/'));
                let json: serde_json::Value =
                    serde_json::from_slice(&get(&url)?).unwrap_or_default();
                let keys = json["jwks_uri"].as_str();
                match keys.filter(|_| json["issuer"] == **issuer) {
                    Some(keys) => {
                        require_secure(keys)?;
                        parse(keys, &get(keys)?)
                    }
                    None => Err(OidcError::NoUri { from: url }),
                }
            }
        }
    }
}

fn parse(from: &str, json: &[u8]) -> Result<Keys, OidcError> {
    Keys::parse(json).map_err(|cause| OidcError::NotKeys {
        from: from.to_owned(),
        cause,
    })
}

fn get(url: &str) -> Result<Vec<u8>, OidcError> {
    let agent: Agent = Agent::config_builder()
        .timeout_global(Some(TIMEOUT))
        // A redirect could leave TLS.
        .max_redirects(0)
        // Plain HTTP is for this machine only, where a proxy would be a detour.
        .proxy(if url.starts_with("https:") {
            Proxy::try_from_env()
        } else {
            None
        })
        .build()
        .into();
    let mut response = agent
        .get(url)
        .call()
        .map_err(|cause| read_error(url, &cause))?;
    response
        .body_mut()
        .with_config()
        .limit(MAX_BYTES)
        .read_to_vec()
        .map_err(|cause| read_error(url, &cause))
}

fn read_error(from: &str, cause: &dyn std::error::Error) -> OidcError {
    OidcError::Read {
        from: from.to_owned(),
        cause: cause.to_string(),
    }
}

fn require_secure(url: &str) -> Result<(), OidcError> {
    let parsed: Option<http::Uri> = url.parse().ok();
    let is_secure = parsed.is_some_and(|uri| match uri.scheme_str() {
        Some("https") => true,
        Some("http") => uri.host().is_some_and(is_loopback),
        _ => false,
    });
    is_secure.then_some(()).ok_or_else(|| OidcError::Insecure {
        url: url.to_owned(),
    })
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_over_tls_or_from_this_machine() {
        for url in [
            "https://login.example.org",
            "http://127.0.0.1:8080/keys",
            "http://[::1]/keys",
            "http://localhost/keys",
        ] {
            assert!(Source::new(url, None).is_ok(), "{url}");
            assert!(Source::new("", Some(url)).is_ok(), "{url}");
        }
        for url in [
            "http://login.example.org",
            "ftp://127.0.0.1/keys",
            "http://127.0.0.1.example.org/",
        ] {
            let error = Source::new("", Some(url)).unwrap_err();
            assert!(
                error.to_string().contains("must be an https URL"),
                "{error}"
            );
        }
        assert!(matches!(
            Source::new("", Some("keys.json")),
            Ok(Source::File(_))
        ));
    }
}
