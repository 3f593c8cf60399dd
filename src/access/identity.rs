//! The identity of a client.

use std::{sync::Arc, time::SystemTime};

use tokio_util::sync::CancellationToken;

use super::{Role, Roles};

/// A client with its rights, in the extensions of each request. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Identity(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
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
            name,
            roles,
            limits,
            expires,
            revoked,
            is_authenticated: true,
        }))
    }

    /// The client of a server without authentication: it may do everything.
    pub(crate) fn anonymous() -> Self {
        Self(Arc::new(Inner {
            name: "anonymous".to_owned(),
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
        Self::new(
            self.0.name.clone(),
            self.0.roles,
            self.0.limits,
            Some(expires),
            revoked,
        )
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
