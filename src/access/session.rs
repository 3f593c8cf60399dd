//! Sessions of browsers. They are kept in memory: a restart ends them.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use super::{
    Identity,
    refusal::{Refusal, unexpired},
    token::{self, TokenHash},
};

const IDLE: Duration = Duration::from_secs(8 * 3600);
const ABSOLUTE: Duration = Duration::from_secs(24 * 3600);
/// Of all identities; a new session ends the one that was not used for the longest time.
const MAX_SESSIONS: usize = 1000;
/// Of one identity, in the same way, so that nobody can end the sessions of others.
const MAX_OF_IDENTITY: usize = 20;

/// Sessions by the hash of their id.
#[derive(Debug, Default)]
pub(super) struct Sessions(Mutex<HashMap<TokenHash, Session>>);

#[derive(Debug)]
struct Session {
    identity: Identity,
    used: Instant,
}

impl Session {
    fn is_over(&self) -> bool {
        self.used.elapsed() >= IDLE
            || self.identity.is_revoked()
            || self.identity.is_expired(SystemTime::now())
    }
}

impl Sessions {
    /// Returns the id of a new session: a secret of 256 random bits.
    pub(super) fn start(&self, identity: Identity) -> Result<String, Refusal> {
        let id = token::generate().map_err(|_| Refusal::Unknown)?;
        let mut sessions = self.lock();
        sessions.retain(|_, session| {
            let is_over = session.is_over();
            if is_over {
                session.identity.end_session();
            }
            !is_over
        });
        let is_own = |session: &Session| session.identity.owner() == identity.owner();
        if sessions.values().filter(|session| is_own(session)).count() >= MAX_OF_IDENTITY {
            evict(&mut sessions, is_own);
        }
        if sessions.len() >= MAX_SESSIONS {
            evict(&mut sessions, |_| true);
        }
        let end = SystemTime::now() + ABSOLUTE;
        let session = Session {
            identity: identity.with_session(end),
            used: Instant::now(),
        };
        sessions.insert(TokenHash::of(&id), session);
        Ok(id)
    }

    pub(super) fn find(&self, id: &str) -> Result<Identity, Refusal> {
        if !token::is_well_formed(id) {
            return Err(Refusal::Malformed);
        }
        let mut sessions = self.lock();
        let session = sessions.get_mut(&TokenHash::of(id));
        let session = session.ok_or(Refusal::Expired)?;
        if session.identity.is_revoked() {
            return Err(Refusal::Unknown);
        }
        if session.used.elapsed() >= IDLE {
            return Err(Refusal::Expired);
        }
        session.used = Instant::now();
        unexpired(session.identity.clone())
    }

    /// Ends a session, and the streams that it has open.
    pub(super) fn end(&self, id: &str) {
        if let Some(session) = self.lock().remove(&TokenHash::of(id)) {
            session.identity.end_session();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TokenHash, Session>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the session that was not used for the longest time among those that `is_candidate` selects.
fn evict(sessions: &mut HashMap<TokenHash, Session>, is_candidate: impl Fn(&Session) -> bool) {
    let candidates = sessions.iter().filter(|(_, session)| is_candidate(session));
    let oldest = candidates.min_by_key(|(_, session)| session.used);
    let oldest = oldest.map(|(hash, _)| *hash);
    if let Some(session) = oldest.and_then(|hash| sessions.remove(&hash)) {
        session.identity.end_session();
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::access::{Limits, Role, Roles};

    fn identity(revoked: &CancellationToken) -> Identity {
        named("ada", revoked)
    }

    fn named(name: &str, revoked: &CancellationToken) -> Identity {
        let roles = Roles::from_iter([Role::Viewer]);
        Identity::new(
            name.to_owned(),
            roles,
            Limits::default(),
            None,
            revoked.clone(),
        )
    }

    #[tokio::test]
    async fn session_ends_by_logout_and_by_revocation() {
        let sessions = Sessions::default();
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

    #[tokio::test]
    async fn new_session_ends_the_least_recently_used_one_of_its_identity() {
        let sessions = Sessions::default();
        let revoked = CancellationToken::new();
        let other = sessions.start(named("grace", &revoked)).unwrap();
        let start = || sessions.start(identity(&revoked)).unwrap();
        let mut ids: Vec<_> = (0..MAX_OF_IDENTITY).map(|_| start()).collect();
        // The first one is used again, so the second one is the oldest.
        assert!(sessions.find(&ids[0]).is_ok());
        let second = sessions.find(&ids[1]).unwrap();
        assert!(ids[2..].iter().all(|id| sessions.find(id).is_ok()));
        assert!(sessions.find(&ids[0]).is_ok());
        ids.push(start());
        second.invalid().await;
        assert_eq!(sessions.find(&ids[1]).unwrap_err(), Refusal::Expired);
        ids.remove(1);
        assert!(ids.iter().all(|id| sessions.find(id).is_ok()));
        assert!(sessions.find(&other).is_ok());
        for user in 0..MAX_SESSIONS {
            sessions.start(named(&user.to_string(), &revoked)).unwrap();
        }
        assert_eq!(sessions.lock().len(), MAX_SESSIONS);
        assert!(sessions.find(&other).is_err());
    }
}
