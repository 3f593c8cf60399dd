//! Passwords of users, hashed with argon2id (RFC 9106).

use std::sync::Arc;

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHasher as _, PasswordVerifier as _, SaltString},
};
use rand::{TryRngCore as _, rngs::OsRng};
use tokio::sync::Semaphore;

use super::Refusal;

/// Memory of one hash, in KiB: the second recommendation of OWASP's password storage guide.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
/// Hashes of the file that need more are refused, because logins could exhaust the machine.
const MAX_MEMORY_KIB: u32 = 256 * 1024;
const MAX_PASSES: u32 = 16;
const MAX_LANES: u32 = 16;
/// Hashes that are computed at the same time.
const CONCURRENT: usize = 2;
/// Passwords that are checked or wait for it.
const MAX_WAITING: usize = 32;
/// Longest accepted password in bytes.
pub(crate) const MAX_PASSWORD: usize = 1024;

/// A hash in the PHC string format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PasswordHash(String);

impl PasswordHash {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let parsed = argon2::PasswordHash::new(text).ok()?;
        let is_argon2id = Algorithm::try_from(parsed.algorithm).ok()? == Algorithm::Argon2id;
        let params = Params::try_from(&parsed).ok()?;
        let is_bounded = params.m_cost() <= MAX_MEMORY_KIB
            && params.t_cost() <= MAX_PASSES
            && params.p_cost() <= MAX_LANES;
        let has_hash = parsed.hash.is_some() && parsed.salt.is_some();
        (is_argon2id && has_hash && is_bounded).then(|| Self(text.to_owned()))
    }

    /// Takes tens of milliseconds.
    fn matches(&self, password: &str) -> bool {
        let parsed = argon2::PasswordHash::new(&self.0);
        parsed.is_ok_and(|hash| hasher().verify_password(password.as_bytes(), &hash).is_ok())
    }
}

/// Hashes a password for the token file.
///
/// # Errors
/// The system has no random numbers, or the password is too long.
pub(crate) fn hash(password: &str) -> Result<String, argon2::password_hash::Error> {
    let mut salt = [0; 16];
    OsRng
        .try_fill_bytes(&mut salt)
        .map_err(|_| argon2::password_hash::Error::Crypto)?;
    let salt = SaltString::encode_b64(&salt)?;
    Ok(hasher()
        .hash_password(password.as_bytes(), &salt)?
        .to_string())
}

fn hasher() -> Argon2<'static> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).unwrap_or_default();
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

/// Verifies passwords, a few at a time.
#[derive(Debug)]
pub(super) struct Passwords {
    places: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    /// Compared for unknown users, so that the time of a refusal is the same for a known one.
    decoy: Option<PasswordHash>,
}

impl Passwords {
    pub(super) fn new() -> Self {
        Self {
            places: Arc::new(Semaphore::new(CONCURRENT)),
            waiting: Arc::new(Semaphore::new(MAX_WAITING)),
            decoy: hash("").ok().map(PasswordHash),
        }
    }

    /// Returns whether the password matches the hash of a user; false without one.
    ///
    /// # Errors
    /// [`Refusal::Busy`] if too many passwords wait.
    #[expect(
        clippy::disallowed_methods,
        reason = "two hashes run at once, so they occupy two threads of the pool at most"
    )]
    pub(super) async fn check(
        &self,
        hash: Option<PasswordHash>,
        password: String,
    ) -> Result<bool, Refusal> {
        let waiting = Arc::clone(&self.waiting).try_acquire_owned();
        let waiting = waiting.map_err(|_| Refusal::Busy)?;
        let is_known = hash.is_some();
        let Some(hash) = hash.or_else(|| self.decoy.clone()) else {
            return Ok(false);
        };
        let Ok(place) = Arc::clone(&self.places).acquire_owned().await else {
            return Ok(false);
        };
        let checked = tokio::task::spawn_blocking(move || {
            let matches = hash.matches(&password);
            drop((place, waiting));
            matches
        });
        Ok(checked.await.unwrap_or(false) && is_known)
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use super::*;

    #[test]
    fn own_and_foreign_hashes_are_verified() {
        let own = PasswordHash::parse(&hash("correct horse").unwrap()).unwrap();
        assert!(own.matches("correct horse"));
        assert!(!own.matches("correct horsf"));
        // printf password | argon2 somesalt -id -t 2 -m 16 -p 1 -e, of the reference implementation
        let reference = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
        let parsed = PasswordHash::parse(reference).unwrap();
        assert!(parsed.matches("password"));
        assert!(!parsed.matches("Password"));
    }

    #[test]
    fn other_algorithms_and_large_memory_are_refused() {
        let reference = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
        for wrong in [
            "",
            "password",
            &reference.replace("argon2id", "argon2i"),
            &reference.replace("m=65536", "m=1048576"),
            &reference.replace("t=2", "t=1000000"),
            "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ",
        ] {
            assert_eq!(PasswordHash::parse(wrong), None, "{wrong}");
        }
    }

    #[tokio::test]
    async fn unknown_user_is_refused_even_with_the_password_of_the_decoy() {
        let passwords = Passwords::new();
        assert_eq!(passwords.check(None, String::new()).await, Ok(false));
        let known = PasswordHash::parse(&hash("secret").unwrap());
        let check = |text: &str| passwords.check(known.clone(), text.to_owned());
        assert_eq!(check("secret").await, Ok(true));
        assert_eq!(check("other").await, Ok(false));
    }

    #[tokio::test]
    async fn logins_beyond_the_limit_are_refused() {
        let passwords = Passwords::new();
        let places = Arc::clone(&passwords.places);
        let occupied = places.acquire_many(2).await.unwrap();
        let mut waiting: Vec<_> = (0..MAX_WAITING)
            .map(|_| Box::pin(passwords.check(None, String::new())))
            .collect();
        let mut context = Context::from_waker(Waker::noop());
        for login in &mut waiting {
            assert!(login.as_mut().poll(&mut context).is_pending());
        }
        let further = passwords.check(None, String::new()).await;
        assert_eq!(further, Err(Refusal::Busy));
        drop((waiting, occupied));
        assert_eq!(passwords.check(None, String::new()).await, Ok(false));
    }
}
