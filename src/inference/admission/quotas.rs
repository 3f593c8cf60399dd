//! Fair sharing of the permits among clients.
//!
//! A client that is alone may hold all permits. If several use the server, each may hold an equal
//! share: a client that sends more than the server can compute fills its own share and is refused,
//! instead of filling the whole queue and having all others refused. The first request of a client
//! without permits is never refused because of its share.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::inference::{Client, Priority};

/// Time after its last request during which a client counts as a user of the server.
const ACTIVE: Duration = Duration::from_secs(2);
/// Clients that are distinguished at once; further ones count as one.
const MAX_CLIENTS: usize = 1024;

/// Permits by client. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct ClientQuotas(Arc<Mutex<HashMap<Client, Usage>>>);

#[derive(Debug)]
struct Usage {
    permits: usize,
    /// The interactive ones among them.
    interactive: usize,
    last_request: Instant,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct QuotaExceeded {
    /// Permits that the client holds.
    pub(super) held: usize,
    /// Permits that it may hold.
    pub(super) share: usize,
    /// Clients that use the server.
    pub(super) clients: usize,
}

#[derive(Debug)]
pub(super) struct Acquired {
    pub(super) quota: Quota,
    /// Interactive images that are computed before the last of the new ones.
    pub(super) ahead: usize,
}

impl ClientQuotas {
    /// Counts `wanted` of the server's `capacity` permits as the client's.
    ///
    /// # Errors
    /// If that exceeds the client's share.
    pub(super) fn acquire(
        &self,
        client: Client,
        wanted: usize,
        priority: Priority,
        capacity: usize,
        now: Instant,
    ) -> Result<Acquired, QuotaExceeded> {
        let mut usages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        usages.retain(|_, usage| {
            usage.permits > 0 || now.saturating_duration_since(usage.last_request) < ACTIVE
        });
        let client = if usages.len() < MAX_CLIENTS || usages.contains_key(&client) {
            client
        } else {
            Client::unknown()
        };
        let usage = usages.entry(client.clone()).or_insert(Usage {
            permits: 0,
            interactive: 0,
            last_request: now,
        });
        usage.last_request = now;
        let (held, own) = (usage.permits, usage.interactive);
        let clients = usages.len();
        let share = (capacity / clients).max(1);
        if clients > 1 && held > 0 && held + wanted > share {
            return Err(QuotaExceeded {
                held,
                share,
                clients,
            });
        }
        // The queue serves clients in turn: each has this many turns until the last of the new
        // images. The client itself is counted with the images that it already has.
        let turns = own + wanted;
        let ahead = usages
            .values()
            .map(|usage| usage.interactive.min(turns))
            .sum();
        if let Some(usage) = usages.get_mut(&client) {
            usage.permits += wanted;
            if priority == Priority::Interactive {
                usage.interactive += wanted;
            }
        }
        let quota = Quota {
            client,
            permits: wanted,
            priority,
            quotas: self.clone(),
        };
        Ok(Acquired { quota, ahead })
    }

    fn release(&self, client: &Client, permits: usize, priority: Priority) {
        let mut usages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(usage) = usages.get_mut(client) {
            usage.permits = usage.permits.saturating_sub(permits);
            if priority == Priority::Interactive {
                usage.interactive = usage.interactive.saturating_sub(permits);
            }
        }
    }
}

/// Permits that count as a client's until this is dropped.
#[derive(Debug)]
pub(super) struct Quota {
    client: Client,
    permits: usize,
    priority: Priority,
    quotas: ClientQuotas,
}

impl Quota {
    /// Takes one permit; `None` if none is left.
    pub(super) fn split(&mut self) -> Option<Self> {
        self.permits = self.permits.checked_sub(1)?;
        Some(Quota {
            client: self.client.clone(),
            permits: 1,
            priority: self.priority,
            quotas: self.quotas.clone(),
        })
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        self.quotas
            .release(&self.client, self.permits, self.priority);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Clock {
        quotas: ClientQuotas,
        now: Instant,
        /// Held until [`Clock::release`].
        held: Vec<Quota>,
    }

    impl Clock {
        fn new() -> Self {
            Clock {
                quotas: ClientQuotas::default(),
                now: Instant::now(),
                held: Vec::new(),
            }
        }

        fn acquire(&mut self, client: &str, wanted: usize) -> Result<(), QuotaExceeded> {
            self.ahead(client, wanted, Priority::Interactive)
                .map(|_| ())
        }

        /// Acquires permits and returns the number of images ahead of the last one.
        fn ahead(
            &mut self,
            client: &str,
            wanted: usize,
            priority: Priority,
        ) -> Result<usize, QuotaExceeded> {
            let client = Client::new(client);
            let acquired = self
                .quotas
                .acquire(client, wanted, priority, 12, self.now)?;
            self.held.push(acquired.quota);
            Ok(acquired.ahead)
        }

        fn release(&mut self, client: &str, permits: usize) {
            let client = Client::new(client);
            let own = self.held.iter_mut().filter(|quota| quota.client == client);
            let released: Vec<_> = own
                .flat_map(|quota| std::iter::from_fn(|| quota.split()))
                .take(permits)
                .collect();
            assert_eq!(released.len(), permits);
        }
    }

    #[test]
    fn client_that_is_alone_may_have_all_permits() {
        let mut clock = Clock::new();
        assert_eq!(clock.acquire("a", 5), Ok(()));
        assert_eq!(clock.acquire("a", 7), Ok(()));
        // The capacity is not the quotas' concern.
        assert_eq!(clock.acquire("a", 1), Ok(()));
    }

    #[test]
    fn clients_that_use_the_server_have_equal_shares() {
        let mut clock = Clock::new();
        assert_eq!(clock.acquire("a", 5), Ok(()));
        assert_eq!(clock.acquire("b", 1), Ok(()));
        assert_eq!(clock.acquire("c", 1), Ok(()));
        // 12 permits for 3 clients.
        let full = |held| {
            Err(QuotaExceeded {
                held,
                share: 4,
                clients: 3,
            })
        };
        assert_eq!(clock.acquire("a", 1), full(5));
        assert_eq!(clock.acquire("b", 3), Ok(()));
        assert_eq!(clock.acquire("b", 1), full(4));
        clock.release("a", 2);
        assert_eq!(clock.acquire("a", 1), Ok(()));
        // A client without images keeps its share for two more seconds.
        clock.release("c", 1);
        clock.now += ACTIVE - Duration::from_millis(1);
        assert_eq!(clock.acquire("a", 1), full(4));
        clock.now += Duration::from_millis(1);
        assert_eq!(clock.acquire("a", 1), Ok(()));
    }

    #[test]
    fn others_have_a_turn_for_each_image_of_a_client() {
        let mut clock = Clock::new();
        assert_eq!(clock.ahead("much", 6, Priority::Interactive), Ok(0));
        // One of the six is computed first, and then the only one of this client.
        assert_eq!(clock.ahead("little", 1, Priority::Interactive), Ok(1));
        // Its own three, and two of each other client, as far as it has that many.
        assert_eq!(clock.ahead("other", 2, Priority::Interactive), Ok(2 + 1));
        assert_eq!(
            clock.ahead("other", 1, Priority::Interactive),
            Ok(2 + 3 + 1)
        );
    }

    #[test]
    fn batch_images_are_ahead_of_none() {
        let mut clock = Clock::new();
        assert_eq!(clock.ahead("bulk", 4, Priority::Batch), Ok(0));
        assert_eq!(clock.ahead("one", 2, Priority::Interactive), Ok(0));
        assert_eq!(clock.ahead("one", 1, Priority::Interactive), Ok(2));
        clock.release("one", 3);
        assert_eq!(clock.ahead("one", 1, Priority::Interactive), Ok(0));
    }

    #[test]
    fn first_request_of_a_client_may_be_larger_than_its_share() {
        let mut clock = Clock::new();
        assert_eq!(clock.acquire("a", 1), Ok(()));
        assert_eq!(clock.acquire("b", 11), Ok(()));
    }

    #[test]
    fn clients_beyond_the_limit_count_as_one() {
        let mut clock = Clock::new();
        for number in 0..MAX_CLIENTS {
            assert_eq!(clock.acquire(&number.to_string(), 1), Ok(()));
        }
        assert_eq!(clock.acquire("one more", 1), Ok(()));
        let full = clock.acquire("and another", 1);
        assert_eq!(full.map_err(|full| full.held), Err(1));
        assert_eq!(clock.acquire("0", 1).map_err(|full| full.held), Err(1));
    }
}
