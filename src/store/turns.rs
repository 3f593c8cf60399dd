//! The order of writes: one write of each connection at a time, in turns.
//!
//! SQLite has one writer. Without turns, a client that sends thousands of small writes would delay
//! the writes of all others. A write without a [`Lane`], such as those of the supervisor, waits for
//! the current write only.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

tokio::task_local! {
    static LANE: Lane;
}

/// The writes of one connection, in their order. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Lane(Arc<Semaphore>);

impl Default for Lane {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

impl Lane {
    /// Runs a future whose writes take their turns in this lane.
    pub(crate) async fn scope<F: Future>(self, future: F) -> F::Output {
        LANE.scope(self, future).await
    }

    /// The lane of the current task.
    pub(super) fn current() -> Option<Self> {
        LANE.try_with(Lane::clone).ok()
    }
}

/// The turn of a write; the next one starts when it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    _lane: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

/// The turns of all lanes, first come, first served.
#[derive(Debug)]
pub(super) struct Turns(Arc<Semaphore>);

impl Turns {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }

    /// Waits for the turn of the current task; `None` for a task without a lane.
    pub(super) async fn next(&self) -> Option<Turn> {
        let lane = Lane::current()?;
        // The semaphores are never closed.
        Some(Turn {
            _lane: lane.0.acquire_owned().await.ok()?,
            _all: Arc::clone(&self.0).acquire_owned().await.ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[tokio::test]
    async fn connection_with_many_writes_delays_another_by_one_write() {
        let turns = Arc::new(Turns::new());
        let order = Arc::new(Mutex::new(Vec::new()));
        let (flood, other) = (Lane::default(), Lane::default());
        let write = |name: &'static str, lane: &Lane| {
            let (turns, order) = (Arc::clone(&turns), Arc::clone(&order));
            let work = async move {
                let turn = turns.next().await;
                order.lock().unwrap().push(name);
                tokio::task::yield_now().await;
                drop(turn);
            };
            tokio::spawn(lane.clone().scope(work))
        };
        let mut writes: Vec<_> = (0..100).map(|_| write("flood", &flood)).collect();
        writes.push(write("other", &other));
        for write in writes {
            write.await.unwrap();
        }
        let order = order.lock().unwrap();
        let position = order.iter().position(|name| *name == "other").unwrap();
        assert!(
            position <= 2,
            "after {position} writes of the other connection"
        );
        assert_eq!(order.len(), 101);
    }

    #[tokio::test]
    async fn task_without_a_lane_does_not_wait() {
        let turns = Turns::new();
        let lane = Lane::default();
        let held = lane.scope(turns.next()).await;
        assert!(held.is_some());
        assert!(turns.next().await.is_none());
    }
}
