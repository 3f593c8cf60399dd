//! A copy of the bytes of a request for the audit log.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// Longer requests are not copied.
const MAX_BYTES: usize = 64 << 10;

tokio::task_local! {
    /// The copy of the request that the current task serves.
    static CURRENT: Recorded;
}

/// The copy, once the request is decoded. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Recorded(Arc<Mutex<Option<Bytes>>>);

impl Recorded {
    /// Runs a future whose decoders copy their request here.
    pub(crate) async fn scope<F: Future>(self, future: F) -> F::Output {
        CURRENT.scope(self, future).await
    }

    pub(crate) fn take(&self) -> Option<Bytes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Copies a message if its call is recorded.
pub(super) fn record(bytes: &[u8]) {
    if bytes.len() > MAX_BYTES {
        return;
    }
    // Most calls are not recorded.
    let recorded = CURRENT.try_with(Clone::clone);
    if let Ok(Recorded(copy)) = recorded {
        *copy.lock().unwrap_or_else(PoisonError::into_inner) = Some(Bytes::copy_from_slice(bytes));
    }
}
