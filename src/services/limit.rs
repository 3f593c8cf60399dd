use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

use super::status::{self, Calls};

/// The maximum number of concurrent calls of one kind. Cheap to clone.
#[derive(Clone)]
pub(crate) struct CallLimit {
    permits: Arc<Semaphore>,
    calls: Calls,
    limit: usize,
}

impl CallLimit {
    pub(crate) fn new(calls: Calls, limit: usize) -> Self {
        CallLimit {
            permits: Arc::new(Semaphore::new(limit)),
            calls,
            limit,
        }
    }

    /// # Errors
    /// RESOURCE_EXHAUSTED if the maximum number of calls is running.
    pub(super) fn acquire(&self) -> Result<OwnedSemaphorePermit, Status> {
        let permit = Arc::clone(&self.permits).try_acquire_owned();
        permit.map_err(|_| status::too_many(self.calls, self.limit))
    }
}
