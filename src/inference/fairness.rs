//! How many of the server's places each client has, and may have.
//!
//! A client that is alone may have all of them. Where several use the server, each may have its equal share: whoever sends more than the server can compute then
//! fills its own share of the queue and is refused, in place of filling the whole queue and having all others refused. The first request of a client that has no
//! place is never refused for its share.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::client::Client;

/// A client uses the server until so long after its last request.
const IN_USE: Duration = Duration::from_secs(2);
/// Clients that are told apart at once; further ones count as one.
const MOST_CLIENTS: usize = 1024;

/// The places by client. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Shares(Arc<Mutex<HashMap<Client, Holding>>>);

#[derive(Debug)]
struct Holding {
    places: usize,
    last_request: Instant,
}

/// Why a client gets no more places.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full {
    /// Places that it has.
    pub(super) held: usize,
    /// How many it may have.
    pub(super) share: usize,
    /// Clients that use the server.
    pub(super) clients: usize,
}

impl Shares {
    /// Counts so many of all the server's `places` as the client's, until [`Shares::give_back`].
    ///
    /// # Errors
    /// When that would be more than its share.
    pub(super) fn take(
        &self,
        client: Client,
        wanted: usize,
        places: usize,
        now: Instant,
    ) -> Result<Client, Full> {
        let mut holdings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        holdings.retain(|_, holding| {
            holding.places > 0 || now.saturating_duration_since(holding.last_request) < IN_USE
        });
        let client = if holdings.len() < MOST_CLIENTS || holdings.contains_key(&client) {
            client
        } else {
            Client::unknown()
        };
        let holding = holdings.entry(client.clone()).or_insert(Holding {
            places: 0,
            last_request: now,
        });
        holding.last_request = now;
        let held = holding.places;
        let clients = holdings.len();
        let share = (places / clients).max(1);
        if clients > 1 && held > 0 && held + wanted > share {
            return Err(Full {
                held,
                share,
                clients,
            });
        }
        if let Some(holding) = holdings.get_mut(&client) {
            holding.places += wanted;
        }
        Ok(client)
    }

    /// So many places are no longer the client's.
    pub(super) fn give_back(&self, client: &Client, places: usize) {
        let mut holdings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(holding) = holdings.get_mut(client) {
            holding.places = holding.places.saturating_sub(places);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Clock {
        shares: Shares,
        now: Instant,
    }

    impl Clock {
        fn new() -> Self {
            Clock {
                shares: Shares::default(),
                now: Instant::now(),
            }
        }

        fn take(&self, client: &str, wanted: usize) -> Result<(), Full> {
            let client = Client::new(client);
            let taken = self.shares.take(client, wanted, 12, self.now);
            taken.map(|_| ())
        }

        fn give_back(&self, client: &str, places: usize) {
            self.shares.give_back(&Client::new(client), places);
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
        // 12 places for 3 clients.
        let full = |held| {
            Err(Full {
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
        // A client without pictures has its share for two seconds more.
        clock.give_back("c", 1);
        clock.now += IN_USE - Duration::from_millis(1);
        assert_eq!(clock.take("a", 1), full(4));
        clock.now += Duration::from_millis(1);
        assert_eq!(clock.take("a", 1), Ok(()));
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
