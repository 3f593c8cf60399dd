//! Permits for one image or several.

use std::{sync::Arc, time::Duration};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{quotas::Quota, wait::WaitEstimator};
use crate::inference::observer;

/// Permits of the whole server.
#[derive(Debug)]
pub(super) struct Pool {
    pub(super) capacity: usize,
    pub(super) free: Arc<Semaphore>,
    pub(super) wait: WaitEstimator,
}

impl Pool {
    pub(super) fn used(&self) -> usize {
        self.capacity - self.free.available_permits()
    }
}

/// The right to have one image in the server.
#[derive(Debug)]
pub(crate) struct Permit {
    /// Set until the permit is dropped.
    permit: Option<OwnedSemaphorePermit>,
    /// Permit of a class that may not use the whole capacity; unset for interactive images.
    class_permit: Option<OwnedSemaphorePermit>,
    /// Unset for work that does not count against a client's quota.
    quota: Option<Quota>,
    /// Images computed until this one was, itself included; unset for images that others overtake.
    depth: Option<usize>,
    pool: Arc<Pool>,
}

impl Permit {
    pub(super) fn new(
        pool: &Arc<Pool>,
        permit: OwnedSemaphorePermit,
        class_permit: Option<OwnedSemaphorePermit>,
        quota: Option<Quota>,
    ) -> Self {
        observer::images_in_flight(pool.used());
        Permit {
            permit: Some(permit),
            class_permit,
            quota,
            depth: None,
            pool: Arc::clone(pool),
        }
    }

    /// Records how long the image waited and was computed, for the estimates of later ones.
    pub(crate) fn record_wait(&self, elapsed: Duration) {
        if let Some(depth) = self.depth {
            self.pool.wait.record(depth, elapsed);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        // Released first, so that the metric does not count this permit.
        self.permit = None;
        self.class_permit = None;
        self.quota = None;
        observer::images_in_flight(self.pool.used());
    }
}

/// Permits for all images of a request.
#[derive(Debug)]
pub(crate) struct PermitSet {
    rest: Permit,
    /// Images ahead of the next one; unset for images that others overtake.
    ahead: Option<usize>,
}

impl PermitSet {
    pub(super) fn new(all: Permit, ahead: Option<usize>) -> Self {
        PermitSet { rest: all, ahead }
    }

    /// Takes the permit of one image; `None` once all have been taken.
    pub(crate) fn split(&mut self) -> Option<Permit> {
        let rest = &mut self.rest;
        let permit = rest.permit.as_mut()?.split(1)?;
        self.ahead = self.ahead.map(|ahead| ahead + 1);
        Some(Permit {
            permit: Some(permit),
            class_permit: rest.class_permit.as_mut().and_then(|class| class.split(1)),
            quota: rest.quota.as_mut().and_then(Quota::split),
            depth: self.ahead,
            pool: Arc::clone(&rest.pool),
        })
    }
}
