//! Limits on the rate of calls, and of failed authentications.

use std::{
    collections::HashMap,
    hash::Hash,
    net::IpAddr,
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError},
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
    services::{caller, status},
};

/// Clients that are distinguished at once; further ones share one rate.
const MAX_CLIENTS: usize = 16_384;
/// Different rates of identities.
const MAX_RATES: usize = 256;
/// Failed authentications of one address in a minute.
const MAX_FAILURES: NonZeroU32 = NonZeroU32::new(10).expect("it is not 0");
/// Probes are not counted.
const PROBES: [&str; 3] = ["/livez", "/readyz", "/grpc.health.v1.Health/Check"];

/// A rate for each of a bounded number of clients.
#[derive(Debug)]
struct Limiter<K: Hash + Eq + Clone>(
    RateLimiter<Option<K>, HashMapStateStore<Option<K>>, DefaultClock, NoOpMiddleware>,
);

impl<K: Hash + Eq + Clone> Limiter<K> {
    fn new(quota: Quota) -> Self {
        Self(RateLimiter::hashmap(quota))
    }

    /// Counts a call; returns false if the client has used its rate.
    fn allows(&self, client: K) -> bool {
        let mut client = Some(client);
        if self.0.len() >= MAX_CLIENTS {
            // Clients that could make all their calls at once again.
            self.0.retain_recent();
            if self.0.len() >= MAX_CLIENTS {
                client = None;
            }
        }
        self.0.check_key(&client).is_ok()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Client {
    Identity(String),
    Address(IpAddr),
}

/// Limits on the calls that start in a second. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Rates(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Of clients without a limit of their own.
    default: Option<NonZeroU32>,
    by_rate: Mutex<HashMap<NonZeroU32, Arc<Limiter<Client>>>>,
}

impl Rates {
    /// `calls_per_second` is for clients without a limit of their own; 0 for no limit.
    pub(crate) fn new(calls_per_second: u32) -> Self {
        Self(Arc::new(Inner {
            default: NonZeroU32::new(calls_per_second),
            by_rate: Mutex::default(),
        }))
    }

    /// Counts a call of an authenticated identity, or else of an address.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED if the client has used its rate.
    pub(crate) fn check(
        &self,
        identity: Option<&Identity>,
        address: Option<IpAddr>,
    ) -> Result<(), Status> {
        let identity = identity.filter(|identity| identity.is_authenticated());
        let own = identity.and_then(|identity| identity.limits().calls_per_second);
        let Some(rate) = own.and_then(NonZeroU32::new).or(self.0.default) else {
            return Ok(());
        };
        let client = match (identity, address) {
            (Some(identity), _) => Client::Identity(identity.name().to_owned()),
            (None, Some(address)) => Client::Address(address),
            (None, None) => return Ok(()),
        };
        if self.limiter(rate).allows(client) {
            return Ok(());
        }
        Err(status::too_fast(rate.get()))
    }

    fn limiter(&self, rate: NonZeroU32) -> Arc<Limiter<Client>> {
        let by_rate = self.0.by_rate.lock();
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

/// Limits failed authentications by address. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct AuthFailures(Arc<Limiter<IpAddr>>);

impl Default for AuthFailures {
    fn default() -> Self {
        Self(Arc::new(Limiter::new(Quota::per_minute(MAX_FAILURES))))
    }
}

impl AuthFailures {
    /// Counts an attempt: a refused credential, or a password before it is checked.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED, in place of the response to the attempt, if there were too many.
    pub(crate) fn count(&self, address: IpAddr) -> Result<(), Status> {
        if self.0.allows(address) {
            return Ok(());
        }
        Err(status::too_many_failures(MAX_FAILURES.get()))
    }
}

/// The middleware of both ports. It is inside of the authentication.
pub(crate) async fn limit(rates: Rates, request: Request, next: Next) -> Response {
    if PROBES.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    let extensions = request.extensions();
    let address = caller::address(extensions).map(|address| address.ip());
    match rates.check(extensions.get::<Identity>(), address) {
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

    fn address(number: u32) -> IpAddr {
        Ipv4Addr::from(number).into()
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
        let failures = AuthFailures::default();
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
        assert!(limiter.0.len() <= MAX_CLIENTS + 1);
    }
}
