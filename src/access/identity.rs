//! The identity of a client.

use std::{sync::Arc, time::SystemTime};

use tokio_util::sync::CancellationToken;

use super::{Role, Roles};

/// Precedes the subjects of an OpenID Connect issuer.
const ISSUED: &str = "oidc:";

/// A client with its rights, in the extensions of each request. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Identity(Arc<Inner>);

#[derive(Debug, Clone)]
struct Inner {
    name: String,
    /// See [`Identity::owner`].
    owner: String,
    roles: Roles,
    limits: Limits,
    expires: Option<SystemTime>,
    revoked: CancellationToken,
    is_authenticated: bool,
}

/// Limits of one identity; `None` for those of the server alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Limits {
    /// Open calls and streams.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) calls: Option<u32>,
    /// Calls that may start in a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) calls_per_second: Option<u32>,
}

impl Identity {
    /// An authenticated client. `revoked` is cancelled when its credential becomes invalid.
    pub(crate) fn new(
        name: String,
        roles: Roles,
        limits: Limits,
        expires: Option<SystemTime>,
        revoked: CancellationToken,
    ) -> Self {
        Self(Arc::new(Inner {
            owner: name.clone(),
            name,
            roles,
            limits,
            expires,
            revoked,
            is_authenticated: true,
        }))
    }

    /// The same identity as a subject of an issuer: names of an issuer can change, can be chosen by
    /// the clients, and can equal names of the token file.
    pub(super) fn with_subject(&self, subject: &str) -> Self {
        Self(Arc::new(Inner {
            owner: format!("{ISSUED}{subject}"),
            ..(*self.0).clone()
        }))
    }

    /// The client of a server without authentication: it may do everything.
    pub(crate) fn anonymous() -> Self {
        Self(Arc::new(Inner {
            name: "anonymous".to_owned(),
            owner: String::new(),
            roles: Roles::from_iter(Role::ALL),
            limits: Limits::default(),
            expires: None,
            revoked: CancellationToken::new(),
            is_authenticated: false,
        }))
    }

    /// A client without a valid credential: it has no role.
    pub(crate) fn none() -> Self {
        Self(Arc::new(Inner {
            name: "unauthenticated".to_owned(),
            owner: String::new(),
            roles: Roles::default(),
            limits: Limits::default(),
            expires: None,
            revoked: CancellationToken::new(),
            is_authenticated: false,
        }))
    }

    /// The identity of a session: it ends at this time, and its end does not revoke the credential.
    pub(super) fn with_session(&self, end: SystemTime) -> Self {
        self.limited(end, self.0.revoked.child_token())
    }

    /// The same identity with an earlier end.
    pub(super) fn until(&self, end: SystemTime) -> Self {
        self.limited(end, self.0.revoked.clone())
    }

    fn limited(&self, end: SystemTime, revoked: CancellationToken) -> Self {
        let expires = self.0.expires.map_or(end, |expires| expires.min(end));
        Self(Arc::new(Inner {
            expires: Some(expires),
            revoked,
            ..(*self.0).clone()
        }))
    }

    pub(super) fn end_session(&self) {
        self.0.revoked.cancel();
    }

    pub(super) fn is_revoked(&self) -> bool {
        self.0.revoked.is_cancelled()
    }

    pub(crate) fn name(&self) -> &str {
        &self.0.name
    }

    /// The text that identifies the client as the owner of what it creates: the name in the token
    /// file, or `oidc:` and the subject of the issuer. Empty without authentication.
    pub(crate) fn owner(&self) -> &str {
        &self.0.owner
    }

    pub(crate) fn has(&self, role: Role) -> bool {
        self.0.roles.has(role)
    }

    pub(crate) fn limits(&self) -> Limits {
        self.0.limits
    }

    /// False for a server without authentication, whose clients differ by their addresses only.
    pub(crate) fn is_authenticated(&self) -> bool {
        self.0.is_authenticated
    }

    pub(crate) fn is_expired(&self, now: SystemTime) -> bool {
        self.0.expires.is_some_and(|expires| expires <= now)
    }

    /// Waits until the credential becomes invalid.
    pub(crate) async fn invalid(&self) {
        let left = self.0.expires.map(|expires| {
            expires
                .duration_since(SystemTime::now())
                .unwrap_or_default()
        });
        match left {
            Some(left) => tokio::select! {
                () = tokio::time::sleep(left) => {}
                () = self.0.revoked.cancelled() => {}
            },
            None => self.0.revoked.cancelled().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owner_is_unique_over_all_methods_and_sessions() {
        let token = Identity::new(
            "ada".to_owned(),
            Roles::default(),
            Limits::default(),
            None,
            CancellationToken::new(),
        );
        assert_eq!(token.owner(), "ada");
        let issued = token.with_subject("1234");
        assert_eq!((issued.name(), issued.owner()), ("ada", "oidc:1234"));
        let end = SystemTime::now();
        assert_eq!(issued.with_session(end).owner(), "oidc:1234");
        assert_eq!(issued.until(end).owner(), "oidc:1234");
        assert!(issued.until(end).is_authenticated());
        assert_eq!(Identity::anonymous().owner(), "");
        assert_eq!(Identity::none().owner(), "");
    }
}
