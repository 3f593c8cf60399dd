//! The memory of requests in flight: bytes that were received and not responded to yet, and bytes
//! of responses that were not sent yet.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// Reason and message of requests that are refused because the memory is in use.
pub(crate) const REASON: &str = "TOO_MANY_BYTES_IN_FLIGHT";
pub(crate) const MESSAGE: &str = "the requests in flight use all memory for requests (max_inflight_bytes); try again when some have finished";

tokio::task_local! {
    /// The memory of the request that the current task serves.
    static CURRENT: Held;
}

/// The bytes that all requests may hold. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    used: Arc<AtomicUsize>,
    limit: usize,
}

impl Budget {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            used: Arc::default(),
            limit,
        }
    }

    /// Starts a request that holds nothing yet.
    pub(crate) fn request(&self) -> Held {
        Held(Arc::new(Share {
            budget: self.clone(),
            received: AtomicUsize::new(0),
            held: AtomicUsize::new(0),
            response: AtomicUsize::new(0),
        }))
    }

    fn try_add(&self, bytes: usize) -> bool {
        let added = self
            .used
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| {
                used.checked_add(bytes).filter(|sum| *sum <= self.limit)
            });
        added.is_ok()
    }
}

/// The bytes of one request; released with the last clone.
#[derive(Debug, Clone)]
pub(crate) struct Held(Arc<Share>);

#[derive(Debug)]
struct Share {
    budget: Budget,
    /// Bytes of the current message as received, possibly compressed.
    received: AtomicUsize,
    /// Bytes taken from the budget: the larger of the received and the decompressed message.
    held: AtomicUsize,
    /// Bytes of the largest response, taken from the budget too.
    response: AtomicUsize,
}

impl Held {
    /// Adds received bytes. Returns false if the budget is exhausted.
    pub(crate) fn receive(&self, bytes: usize) -> bool {
        let received = self.0.received.load(Ordering::Acquire) + bytes;
        let is_held = self.grow_to(received);
        if is_held {
            self.0.received.store(received, Ordering::Release);
        }
        is_held
    }

    /// Releases the memory of the messages so far, which the service has taken.
    pub(crate) fn next_message(&self) {
        self.0.received.store(0, Ordering::Release);
        let held = self.0.held.swap(0, Ordering::AcqRel);
        self.0.budget.used.fetch_sub(held, Ordering::AcqRel);
    }

    /// Holds the memory of a response until the request ends. Returns false if the budget is
    /// exhausted.
    pub(crate) fn respond(&self, bytes: usize) -> bool {
        self.grow(&self.0.response, bytes)
    }

    /// Runs a function whose encoders hold the memory of their messages here.
    pub(crate) fn within<R>(&self, function: impl FnOnce() -> R) -> R {
        CURRENT.sync_scope(self.clone(), function)
    }

    /// Runs a future whose decoders hold the memory of their messages here.
    pub(crate) async fn scope<F: Future>(self, future: F) -> F::Output {
        CURRENT.scope(self, future).await
    }

    fn grow_to(&self, bytes: usize) -> bool {
        self.grow(&self.0.held, bytes)
    }

    fn grow(&self, held: &AtomicUsize, bytes: usize) -> bool {
        let before = held.load(Ordering::Acquire);
        let Some(more) = bytes.checked_sub(before).filter(|more| *more > 0) else {
            return true;
        };
        let is_added = self.0.budget.try_add(more);
        if is_added {
            held.fetch_add(more, Ordering::AcqRel);
        }
        is_added
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let held = *self.held.get_mut() + *self.response.get_mut();
        self.budget.used.fetch_sub(held, Ordering::AcqRel);
    }
}

/// Holds the memory of a decompressed message of the current request. Returns false if the budget
/// is exhausted; outside of a request always true.
pub(super) fn hold_message(bytes: usize) -> bool {
    CURRENT.try_with(|held| held.grow_to(bytes)).unwrap_or(true)
}

/// As [`hold_message`], for a response of the current request.
pub(crate) fn hold_response(bytes: usize) -> bool {
    CURRENT.try_with(|held| held.respond(bytes)).unwrap_or(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_held_until_the_request_ends() {
        let budget = Budget::new(100);
        let (one, other) = (budget.request(), budget.request());
        assert!(one.receive(60));
        assert!(other.receive(40));
        assert!(!other.receive(1));
        drop(one);
        assert!(other.receive(60));
        drop(other);
        assert_eq!(budget.used.load(Ordering::Acquire), 0);
    }

    #[test]
    fn stream_holds_its_current_message_only() {
        let budget = Budget::new(100);
        let stream = budget.request();
        for _ in 0..5 {
            assert!(stream.receive(90));
            stream.next_message();
        }
        assert_eq!(budget.used.load(Ordering::Acquire), 0);
    }

    #[test]
    fn response_is_held_in_addition_until_the_request_ends() {
        let budget = Budget::new(100);
        let request = budget.request();
        assert!(request.receive(30));
        assert!(request.within(|| hold_response(50)));
        // The same response once more, and a larger one.
        assert!(request.respond(50) && request.respond(70));
        assert!(!request.within(|| hold_response(71)));
        let other = budget.request();
        assert!(!other.receive(1));
        drop(request);
        assert!(other.respond(100));
    }

    #[tokio::test]
    async fn decompressed_message_counts_in_place_of_its_compressed_bytes() {
        let budget = Budget::new(100);
        let request = budget.request();
        assert!(request.receive(10));
        let seen = budget.clone();
        request
            .scope(async move {
                assert!(hold_message(80));
                assert_eq!(seen.used.load(Ordering::Acquire), 80);
                assert!(!hold_message(101));
            })
            .await;
        assert!(hold_message(usize::MAX), "outside of a request");
        assert_eq!(budget.used.load(Ordering::Acquire), 0);
    }
}
