use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use arc_swap::ArcSwap;
use jsonwebtoken::{Validation, decode, decode_header};
use serde_json::{Map, Value};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{
    keys::Keys,
    signatures,
    source::{OidcError, Source},
};
use crate::access::{Identity, Limits, Refusal, Role, Roles, credentials::OIDC_PREFIX};

/// Interval of reading the keys again.
const REFRESH: Duration = Duration::from_secs(300);
/// Shortest interval, also when tokens name unknown keys.
const MIN_REFRESH: Duration = Duration::from_secs(10);
/// Allowed difference of the clocks in seconds.
const LEEWAY: u64 = 60;
const DEFAULT_ROLES_CLAIM: &str = "roles";
/// Longest name of an identity in bytes.
const MAX_NAME: usize = 128;
/// Longest subject in bytes, by the standard.
const MAX_SUBJECT: usize = 255;

#[derive(Debug)]
pub(crate) struct OidcOptions {
    pub(crate) issuer: String,
    pub(crate) audience: String,
    /// A file or a URL; `None` for the URL of the discovery document.
    pub(crate) jwks: Option<String>,
    /// A claim, or a path of claims such as `realm_access.roles`.
    pub(crate) roles_claim: Option<String>,
}

/// The accepted issuer. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Oidc(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    issuer: String,
    audience: String,
    roles_claim: String,
    source: Source,
    keys: ArcSwap<Keys>,
    /// A token named an unknown key.
    unknown_key: Notify,
}

impl Oidc {
    /// # Errors
    /// A URL without TLS to another machine.
    pub(crate) fn new(options: OidcOptions) -> Result<Self, OidcError> {
        signatures::install();
        Ok(Self(Arc::new(Inner {
            source: Source::new(&options.issuer, options.jwks.as_deref())?,
            issuer: options.issuer,
            audience: options.audience,
            roles_claim: options
                .roles_claim
                .unwrap_or_else(|| DEFAULT_ROLES_CLAIM.to_owned()),
            keys: ArcSwap::default(),
            unknown_key: Notify::new(),
        })))
    }

    /// Reads the keys, and again at intervals and when a token names an unknown key, until the
    /// token is cancelled. Until the keys are read, all tokens are refused.
    #[expect(
        clippy::disallowed_methods,
        reason = "the blocking pool is for file operations and requests to the issuer; one runs at once"
    )]
    pub(crate) async fn follow_keys(self, shutdown: CancellationToken) {
        let mut failed = false;
        loop {
            let started = Instant::now();
            let oidc = self.clone();
            match tokio::task::spawn_blocking(move || oidc.0.source.read()).await {
                Ok(Ok(keys)) => {
                    self.0.keys.store(Arc::new(keys));
                    failed = false;
                }
                Ok(Err(error)) => {
                    // The previous keys stay valid: an unreachable issuer locks out nobody.
                    if !failed {
                        tracing::warn!(%error, "failed to read the keys of oidc_issuer; trying again every {} s", MIN_REFRESH.as_secs());
                    }
                    failed = true;
                }
                Err(error) => tracing::error!(%error, "reading the keys of oidc_issuer panicked"),
            }
            let interval = if failed { MIN_REFRESH } else { REFRESH };
            tokio::select! {
                () = tokio::time::sleep(interval) => {}
                () = self.unknown_key_after(started) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    /// Waits until a token names an unknown key, and for the shortest interval since `started`.
    async fn unknown_key_after(&self, started: Instant) {
        self.0.unknown_key.notified().await;
        tokio::time::sleep(MIN_REFRESH.saturating_sub(started.elapsed())).await;
    }

    /// The identity of a token of the issuer: `oidc:` and the name in `preferred_username`, else
    /// `email`, else `sub`. It owns what it creates under `sub`.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "all other errors are refused alike"
    )]
    pub(crate) fn verify(&self, token: &str) -> Result<Identity, Refusal> {
        let header = decode_header(token).map_err(|_| Refusal::Malformed)?;
        let keys = self.0.keys.load();
        let Some(key) = keys.find(header.kid.as_deref()) else {
            self.0.unknown_key.notify_one();
            return Err(Refusal::Unknown);
        };
        let mut rules = Validation::new(key.algorithm);
        rules.leeway = LEEWAY;
        rules.validate_nbf = true;
        rules.set_issuer(&[&self.0.issuer]);
        rules.set_audience(&[&self.0.audience]);
        rules.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        let decoded = decode::<Map<String, Value>>(token, &key.key, &rules);
        let claims = decoded
            .map_err(|error| match error.kind() {
                jsonwebtoken::errors::ErrorKind::ExpiredSignature => Refusal::Expired,
                _ => Refusal::Unknown,
            })?
            .claims;
        let name = ["preferred_username", "email", "sub"]
            .into_iter()
            .find_map(|claim| claims.get(claim)?.as_str())
            .filter(|name| !name.is_empty() && name.len() <= MAX_NAME)
            .filter(|name| !name.chars().any(char::is_control))
            .ok_or(Refusal::Malformed)?;
        let subject = claims.get("sub").and_then(Value::as_str);
        let is_valid = |subject: &&str| {
            (1..=MAX_SUBJECT).contains(&subject.len()) && !subject.chars().any(char::is_control)
        };
        let subject = subject.filter(is_valid).ok_or(Refusal::Malformed)?;
        let expires = claims
            .get("exp")
            .and_then(Value::as_u64)
            .ok_or(Refusal::Malformed)?;
        let expires =
            SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(expires.saturating_add(LEEWAY)));
        let identity = Identity::new(
            format!("{OIDC_PREFIX}{name}"),
            roles(&claims, &self.0.roles_claim),
            Limits::default(),
            expires,
            CancellationToken::new(),
        );
        Ok(identity.with_subject(subject))
    }
}

/// The roles in a list, or in a text that spaces separate.
fn roles(claims: &Map<String, Value>, claim: &str) -> Roles {
    // A name with dots may be one claim, such as a URL.
    let found = claims.get(claim).or_else(|| {
        let mut parts = claim.split('.');
        let first = claims.get(parts.next()?)?;
        parts.try_fold(first, |value, part| value.get(part))
    });
    match found {
        Some(Value::String(text)) => text.split_whitespace().filter_map(Role::parse).collect(),
        Some(Value::Array(names)) => {
            let names = names.iter().filter_map(Value::as_str);
            names.filter_map(Role::parse).collect()
        }
        _ => Roles::default(),
    }
}
