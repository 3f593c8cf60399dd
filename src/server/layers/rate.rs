//! Limits on the rate of calls, and of failed authentications.

use std::{
    collections::HashMap,
    hash::Hash,
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::{extract::Request, middleware::Next, response::Response};
use governor::{
    Quota, RateLimiter, clock::DefaultClock, middleware::NoOpMiddleware,
    state::keyed::HashMapStateStore,
};
use http::header::CONTENT_TYPE;
use tonic::Status;

use super::call_limits::refusal;
use crate::{
    access::Identity,
    services::{caller::Source, status},
};

/// Clients that are distinguished at once; further ones share one rate.
const MAX_CLIENTS: usize = 16_384;
/// Shortest interval of the searches for clients that can be forgotten, which lock the table.
const CLEANING_INTERVAL: Duration = Duration::from_secs(1);
/// Different rates of identities.
const MAX_RATES: usize = 256;
/// Failed authentications of one client in a minute.
const MAX_FAILURES: NonZeroU32 = NonZeroU32::new(10).expect("it is not 0");
/// Refused calls of one client in a minute that the audit log records.
const MAX_DENIALS: NonZeroU32 = NonZeroU32::new(60).expect("it is not 0");
/// Probes are not counted.
const PROBES: [&str; 3] = ["/livez", "/readyz", "/grpc.health.v1.Health/Check"];

/// A rate for each of a bounded number of clients.
#[derive(Debug)]
struct Limiter<K: Hash + Eq + Clone> {
    limiter: RateLimiter<Option<K>, HashMapStateStore<Option<K>>, DefaultClock, NoOpMiddleware>,
    cleaned: Mutex<Instant>,
}

impl<K: Hash + Eq + Clone> Limiter<K> {
    fn new(quota: Quota) -> Self {
        Self {
            limiter: RateLimiter::hashmap(quota),
            cleaned: Mutex::new(Instant::now()),
        }
    }

    /// Counts a call; returns false if the client has used its rate.
    fn allows(&self, client: K) -> bool {
        let mut client = Some(client);
        if self.limiter.len() >= MAX_CLIENTS {
            self.clean();
            if self.limiter.len() >= MAX_CLIENTS {
                client = None;
            }
        }
        self.limiter.check_key(&client).is_ok()
    }

    /// Forgets clients that could make all their calls at once again.
    fn clean(&self) {
        let mut cleaned = self.cleaned.lock().unwrap_or_else(PoisonError::into_inner);
        if cleaned.elapsed() >= CLEANING_INTERVAL {
            self.limiter.retain_recent();
            *cleaned = Instant::now();
        }
    }
}

/// Limits on the calls that start in a second. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Rates(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Of clients without a limit of their own.
    default: Option<NonZeroU32>,
    /// Of clients without an identity. They have a table of their own, so that many addresses do
    /// not fill that of the identities.
    sources: Option<Limiter<Source>>,
    identities: Mutex<HashMap<NonZeroU32, Arc<Limiter<String>>>>,
}

impl Rates {
    /// `calls_per_second` is for clients without a limit of their own; 0 for no limit.
    pub(crate) fn new(calls_per_second: u32) -> Self {
        let default = NonZeroU32::new(calls_per_second);
        Self(Arc::new(Inner {
            default,
            sources: default.map(|rate| Limiter::new(Quota::per_second(rate))),
            identities: Mutex::default(),
        }))
    }

    /// Counts a call of an authenticated identity, or else of an address.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED if the client has used its rate.
    pub(crate) fn check(
        &self,
        identity: Option<&Identity>,
        source: Option<Source>,
    ) -> Result<(), Status> {
        let identity = identity.filter(|identity| identity.is_authenticated());
        let own = identity.and_then(|identity| identity.limits().calls_per_second);
        let Some(rate) = own.and_then(NonZeroU32::new).or(self.0.default) else {
            return Ok(());
        };
        let is_allowed = match (identity, source, &self.0.sources) {
            (Some(identity), _, _) => self.limiter(rate).allows(identity.owner().to_owned()),
            (None, Some(source), Some(limiter)) => limiter.allows(source),
            (None, _, _) => true,
        };
        if is_allowed {
            return Ok(());
        }
        Err(status::too_fast(rate.get()))
    }

    fn limiter(&self, rate: NonZeroU32) -> Arc<Limiter<String>> {
        let by_rate = self.0.identities.lock();
        let mut by_rate = by_rate.unwrap_or_else(PoisonError::into_inner);
        if by_rate.len() >= MAX_RATES && !by_rate.contains_key(&rate) {
            // The rates of identities changed very often.
            by_rate.clear();
        }
        let limiter = by_rate
            .entry(rate)
            .or_insert_with(|| Arc::new(Limiter::new(Quota::per_second(rate))));
        Arc::clone(limiter)
    }
}

/// Limits the refused requests of a client in a minute. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Refusals<K: Hash + Eq + Clone> {
    limiter: Arc<Limiter<K>>,
    per_minute: NonZeroU32,
}

impl<K: Hash + Eq + Clone> Refusals<K> {
    fn new(per_minute: NonZeroU32) -> Self {
        Self {
            limiter: Arc::new(Limiter::new(Quota::per_minute(per_minute))),
            per_minute,
        }
    }

    /// Counts a refusal.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED, in place of the response to the request, if there were too many.
    pub(crate) fn count(&self, client: K) -> Result<(), Status> {
        if self.limiter.allows(client) {
            return Ok(());
        }
        Err(status::too_many_failures(self.per_minute.get()))
    }
}

/// Failed authentications. A login counts before the password is checked.
pub(crate) type Failures = Refusals<Source>;

/// Calls of valid identities that lack a role, by the owner of the identity.
pub(crate) type Denials = Refusals<String>;

impl Failures {
    pub(crate) fn of_sources() -> Self {
        Self::new(MAX_FAILURES)
    }
}

impl Denials {
    pub(crate) fn of_identities() -> Self {
        Self::new(MAX_DENIALS)
    }
}

/// The middleware of both ports. It is inside of the authentication.
pub(crate) async fn limit(rates: Rates, request: Request, next: Next) -> Response {
    if PROBES.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    let extensions = request.extensions();
    match rates.check(extensions.get::<Identity>(), Source::of(extensions)) {
        Ok(()) => next.run(request).await,
        Err(refused) => refusal(&refused, request.headers().get(CONTENT_TYPE).cloned()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::access::{Limits, Role, Roles};

    fn address(number: u32) -> Source {
        Source::Network(Ipv4Addr::from(number).into())
    }

    fn identity(name: &str, calls_per_second: Option<u32>) -> Identity {
        let limits = Limits {
            calls_per_second,
            ..Limits::default()
        };
        let roles = Roles::from_iter([Role::Viewer]);
        Identity::new(
            name.to_owned(),
            roles,
            limits,
            None,
            CancellationToken::new(),
        )
    }

    /// Calls that pass before the first refused one, of 1000.
    fn passed(mut check: impl FnMut() -> Result<(), Status>) -> usize {
        (0..1000).take_while(|_| check().is_ok()).count()
    }

    #[test]
    fn identity_has_a_rate_of_its_own_and_an_address_the_default() {
        let rates = Rates::new(5);
        let (one, other) = (identity("one", Some(50)), identity("other", None));
        // A few more may pass, because time passes during the test.
        assert!((50..100).contains(&passed(|| rates.check(Some(&one), Some(address(1))))));
        assert!((5..20).contains(&passed(|| rates.check(Some(&other), Some(address(1))))));
        assert!((5..20).contains(&passed(|| rates.check(None, Some(address(1))))));
        let anonymous = Identity::anonymous();
        assert!(rates.check(Some(&anonymous), Some(address(2))).is_ok());
        let off = Rates::new(0);
        assert_eq!(passed(|| off.check(None, Some(address(1)))), 1000);
    }

    #[test]
    fn failures_are_counted_by_address() {
        let failures = Failures::of_sources();
        assert_eq!(passed(|| failures.count(address(1))), 10);
        assert!(failures.count(address(2)).is_ok());
        let refused = failures.count(address(1)).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
    }

    #[test]
    fn clients_beyond_the_limit_share_one_rate() {
        let limiter = Limiter::new(Quota::per_minute(MAX_FAILURES));
        for client in 0..MAX_CLIENTS {
            assert!(limiter.allows(client));
        }
        assert_eq!(
            (0..100)
                .filter(|more| limiter.allows(MAX_CLIENTS + more))
                .count(),
            10
        );
        assert!(limiter.limiter.len() <= MAX_CLIENTS + 1);
    }
}
