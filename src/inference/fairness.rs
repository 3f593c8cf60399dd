//! How many of the server's permits each client has, and may have.
//!
//! A client that is alone may have all of them. Where several use the server, each may have its equal share: whoever sends more than the server can compute then
//! fills its own share of the queue and is refused, in permit of filling the whole queue and having all others refused. The first request of a client that has no
//! permit is never refused for its share.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::{Priority, client::Client};

/// A client uses the server until so long after its last request.
const IN_USE: Duration = Duration::from_secs(2);
/// Clients that are told apart at once; further ones count as one.
const MOST_CLIENTS: usize = 1024;

/// The permits by client. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct ClientQuotas(Arc<Mutex<HashMap<Client, Usage>>>);

#[derive(Debug)]
struct Usage {
    permits: usize,
    /// Those of them that somebody waits for.
    interactive: usize,
    last_request: Instant,
}

/// Why a client gets no more permits.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct QuotaExceeded {
    /// Places that it has.
    pub(super) held: usize,
    /// How many it may have.
    pub(super) share: usize,
    /// Clients that use the server.
    pub(super) clients: usize,
}

/// Places that a client was given.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Taken {
    /// Whose they count as.
    pub(super) client: Client,
    /// Images that somebody waits for and that have their turn before the last of these.
    pub(super) before: usize,
}

impl ClientQuotas {
    /// Counts so many of all the server's `permits` as the client's, until [`ClientQuotas::give_back`].
    ///
    /// # Errors
    /// When that would be more than its share.
    pub(super) fn take(
        &self,
        client: Client,
        wanted: usize,
        priority: Priority,
        permits: usize,
        now: Instant,
    ) -> Result<Taken, QuotaExceeded> {
        let mut holdings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        holdings.retain(|_, holding| {
            holding.permits > 0 || now.saturating_duration_since(holding.last_request) < IN_USE
        });
        let client = if holdings.len() < MOST_CLIENTS || holdings.contains_key(&client) {
            client
        } else {
            Client::unknown()
        };
        let holding = holdings.entry(client.clone()).or_insert(Usage {
            permits: 0,
            interactive: 0,
            last_request: now,
        });
        holding.last_request = now;
        let (held, own) = (holding.permits, holding.interactive);
        let clients = holdings.len();
        let share = (permits / clients).max(1);
        if clients > 1 && held > 0 && held + wanted > share {
            return Err(QuotaExceeded {
                held,
                share,
                clients,
            });
        }
        // Until the last of these every client has so many turns. The client itself has no more than its own yet.
        let turns = own + wanted;
        let used = holdings
            .values()
            .map(|holding| holding.interactive.min(turns));
        let before = used.sum();
        if let Some(holding) = holdings.get_mut(&client) {
            holding.permits += wanted;
            if priority == Priority::Interactive {
                holding.interactive += wanted;
            }
        }
        Ok(Taken { client, before })
    }

    /// So many permits are no longer the client's.
    pub(super) fn give_back(&self, client: &Client, permits: usize, priority: Priority) {
        let mut holdings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(holding) = holdings.get_mut(client) {
            holding.permits = holding.permits.saturating_sub(permits);
            if priority == Priority::Interactive {
                holding.interactive = holding.interactive.saturating_sub(permits);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Clock {
        shares: ClientQuotas,
        now: Instant,
    }

    impl Clock {
        fn new() -> Self {
            Clock {
                shares: ClientQuotas::default(),
                now: Instant::now(),
            }
        }

        fn take(&self, client: &str, wanted: usize) -> Result<(), QuotaExceeded> {
            self.line(client, wanted, Priority::Interactive).map(|_| ())
        }

        /// How many are before the last of so many images, which are given permits.
        fn line(
            &self,
            client: &str,
            wanted: usize,
            priority: Priority,
        ) -> Result<usize, QuotaExceeded> {
            let client = Client::new(client);
            let taken = self.shares.take(client, wanted, priority, 12, self.now);
            taken.map(|taken| taken.before)
        }

        fn give_back(&self, client: &str, permits: usize) {
            let client = Client::new(client);
            self.shares
                .give_back(&client, permits, Priority::Interactive);
        }
    }

    #[test]
    fn client_that_is_alone_may_have_all_places() {
        let clock = Clock::new();
        assert_eq!(clock.take("a", 5), Ok(()));
        assert_eq!(clock.take("a", 7), Ok(()));
        // That there are no more is not for its share.
        assert_eq!(clock.take("a", 1), Ok(()));
    }

    #[test]
    fn clients_that_use_the_server_have_equal_shares() {
        let mut clock = Clock::new();
        assert_eq!(clock.take("a", 5), Ok(()));
        assert_eq!(clock.take("b", 1), Ok(()));
        assert_eq!(clock.take("c", 1), Ok(()));
        // 12 permits for 3 clients.
        let full = |held| {
            Err(QuotaExceeded {
                held,
                share: 4,
                clients: 3,
            })
        };
        assert_eq!(clock.take("a", 1), full(5));
        assert_eq!(clock.take("b", 3), Ok(()));
        assert_eq!(clock.take("b", 1), full(4));
        clock.give_back("a", 2);
        assert_eq!(clock.take("a", 1), Ok(()));
        // A client without images has its share for two seconds more.
        clock.give_back("c", 1);
        clock.now += IN_USE - Duration::from_millis(1);
        assert_eq!(clock.take("a", 1), full(4));
        clock.now += Duration::from_millis(1);
        assert_eq!(clock.take("a", 1), Ok(()));
    }

    #[test]
    fn others_have_a_turn_for_each_image_of_a_client() {
        let clock = Clock::new();
        assert_eq!(clock.line("much", 6, Priority::Interactive), Ok(0));
        // One of the six goes first, and then the only one of this client.
        assert_eq!(clock.line("little", 1, Priority::Interactive), Ok(1));
        // Its own three and two of the others, as long as they have so many.
        assert_eq!(clock.line("other", 2, Priority::Interactive), Ok(2 + 1));
        assert_eq!(clock.line("other", 1, Priority::Interactive), Ok(2 + 3 + 1));
    }

    #[test]
    fn images_that_nobody_waits_for_are_before_none() {
        let clock = Clock::new();
        assert_eq!(clock.line("bulk", 4, Priority::Batch), Ok(0));
        assert_eq!(clock.line("one", 2, Priority::Interactive), Ok(0));
        assert_eq!(clock.line("one", 1, Priority::Interactive), Ok(2));
        clock.give_back("one", 3);
        assert_eq!(clock.line("one", 1, Priority::Interactive), Ok(0));
    }

    #[test]
    fn first_request_of_a_client_may_be_larger_than_its_share() {
        let clock = Clock::new();
        assert_eq!(clock.take("a", 1), Ok(()));
        assert_eq!(clock.take("b", 11), Ok(()));
    }

    #[test]
    fn more_clients_than_are_told_apart_are_one() {
        let clock = Clock::new();
        for number in 0..MOST_CLIENTS {
            assert_eq!(clock.take(&number.to_string(), 1), Ok(()));
        }
        assert_eq!(clock.take("one more", 1), Ok(()));
        let full = clock.take("and another", 1);
        assert_eq!(full.map_err(|full| full.held), Err(1));
        assert_eq!(clock.take("0", 1).map_err(|full| full.held), Err(1));
    }
}
