//! Sessions of browsers. They are kept in memory: a restart ends them.

use std::time::{Duration, SystemTime};

use moka::sync::Cache;

use super::{
    Identity,
    refusal::{Refusal, unexpired},
    token::{self, TokenHash},
};

const IDLE: Duration = Duration::from_secs(8 * 3600);
const ABSOLUTE: Duration = Duration::from_secs(24 * 3600);
/// The oldest are evicted beyond this number.
const MAX_SESSIONS: u64 = 1000;

/// Sessions by the hash of their id.
#[derive(Debug)]
pub(super) struct Sessions(Cache<TokenHash, Identity, std::hash::RandomState>);

impl Sessions {
    pub(super) fn new() -> Self {
        Self(
            Cache::builder()
                .max_capacity(MAX_SESSIONS)
                .time_to_idle(IDLE)
                .time_to_live(ABSOLUTE)
                .build(),
        )
    }

    /// Returns the id of a new session: a secret of 256 random bits.
    pub(super) fn start(&self, identity: Identity) -> Result<String, Refusal> {
        let id = token::generate().map_err(|_| Refusal::Unknown)?;
        let end = SystemTime::now() + ABSOLUTE;
        self.0
            .insert(TokenHash::of(&id), identity.with_session(end));
        Ok(id)
    }

    pub(super) fn find(&self, id: &str) -> Result<Identity, Refusal> {
        if !token::is_well_formed(id) {
            return Err(Refusal::Malformed);
        }
        let identity = self.0.get(&TokenHash::of(id)).ok_or(Refusal::Expired)?;
        if identity.is_revoked() {
            self.end(id);
            return Err(Refusal::Unknown);
        }
        unexpired(identity)
    }

    /// Ends a session, and the streams that it has open.
    pub(super) fn end(&self, id: &str) {
        if let Some(identity) = self.0.remove(&TokenHash::of(id)) {
            identity.end_session();
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::access::{Limits, Role, Roles};

    fn identity(revoked: &CancellationToken) -> Identity {
        let roles = Roles::from_iter([Role::Viewer]);
        Identity::new(
            "ada".to_owned(),
            roles,
            Limits::default(),
            None,
            revoked.clone(),
        )
    }

    #[tokio::test]
    async fn session_ends_by_logout_and_by_revocation() {
        let sessions = Sessions::new();
        let revoked = CancellationToken::new();
        let (first, second) = (
            sessions.start(identity(&revoked)).unwrap(),
            sessions.start(identity(&revoked)).unwrap(),
        );
        let found = sessions.find(&first).unwrap();
        assert_eq!(found.name(), "ada");
        sessions.end(&first);
        // The open streams of the session end, those of the other session do not.
        found.invalid().await;
        assert_eq!(sessions.find(&first).unwrap_err(), Refusal::Expired);
        assert!(!sessions.find(&second).unwrap().is_revoked());
        revoked.cancel();
        assert_eq!(sessions.find(&second).unwrap_err(), Refusal::Unknown);
        assert_eq!(sessions.find("abc").unwrap_err(), Refusal::Malformed);
    }
}
