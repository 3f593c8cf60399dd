//! Turns of clients on the decoding threads.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use super::Client;

type Work = Box<dyn FnOnce() + Send>;

/// Work that waits for a thread. Each thread takes the next work of another client, so that a
/// hundred images of one client delay another client's image by one image. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Turns(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// Never empty for a client.
    waiting: HashMap<Client, VecDeque<Work>>,
    /// The clients with waiting work, the next one first.
    order: VecDeque<Client>,
}

impl Turns {
    pub(super) fn push(&self, client: Client, work: Work) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_client = state.waiting.entry(client.clone()).or_default();
        of_client.push_back(work);
        if of_client.len() == 1 {
            state.order.push_back(client);
        }
    }

    /// Runs the next work, if any.
    pub(super) fn run_next(&self) {
        if let Some(work) = self.take() {
            work();
        }
    }

    fn take(&self) -> Option<Work> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let client = state.order.pop_front()?;
        let of_client = state.waiting.get_mut(&client)?;
        let work = of_client.pop_front();
        if of_client.is_empty() {
            state.waiting.remove(&client);
        } else {
            state.order.push_back(client);
        }
        work
    }
}

impl std::fmt::Debug for Turns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Turns").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_take_turns() {
        let turns = Turns::default();
        let done = Arc::new(Mutex::new(Vec::new()));
        for name in ["a1", "a2", "a3", "b1", "c1", "c2"] {
            let done = Arc::clone(&done);
            let work = Box::new(move || done.lock().unwrap().push(name));
            turns.push(Client::new(&name[..1]), work);
        }
        for _ in 0..8 {
            turns.run_next();
        }
        assert_eq!(*done.lock().unwrap(), ["a1", "b1", "c1", "a2", "c2", "a3"]);
        let state = turns.0.lock().unwrap();
        assert!(state.waiting.is_empty() && state.order.is_empty());
    }
}
