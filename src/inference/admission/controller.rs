//! Grants permits, or refuses them.

use std::{sync::Arc, time::Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    permit::{Permit, PermitSet, Pool},
    quotas::{ClientQuotas, QuotaExceeded},
    wait::WaitEstimator,
};
use crate::inference::{Client, Error, Priority};

/// Background work gets one permit in this many, so that a client's images wait for few of its.
const BACKGROUND_DIVISOR: usize = 16;

/// One permit in this many is reserved for interactive images.
const RESERVED_DIVISOR: usize = 4;

/// A request is admitted if its deadline leaves this many times the estimated wait. The speed of a
/// shared machine changes by a third from one second to the next, and a late result is useless but
/// costs as much as any, while a shorter queue costs nothing as long as it is not empty.
const DEADLINE_MARGIN: f64 = 1.5;

/// Grants permits. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct AdmissionController {
    pool: Arc<Pool>,
    /// Permits that images of batch priority may hold at once.
    batch: Arc<Semaphore>,
    /// Permits that background work may hold at once.
    background: Arc<Semaphore>,
    quotas: ClientQuotas,
}

impl AdmissionController {
    pub(crate) fn new(capacity: usize) -> Self {
        AdmissionController {
            batch: Arc::new(Semaphore::new(batch_capacity(capacity))),
            background: Arc::new(Semaphore::new(background_capacity(capacity))),
            quotas: ClientQuotas::default(),
            pool: Arc::new(Pool {
                capacity,
                free: Arc::new(Semaphore::new(capacity)),
                wait: WaitEstimator::default(),
            }),
        }
    }

    /// Returns the number of permits that background work may hold at once.
    pub(crate) fn background_capacity(&self) -> usize {
        background_capacity(self.pool.capacity)
    }

    /// Waits for a permit for background work.
    ///
    /// # Errors
    /// `EngineGone` if the semaphores were closed, which they never are.
    pub(crate) async fn acquire_background(&self) -> Result<Permit, Error> {
        self.acquire(&self.background).await
    }

    /// Waits for a permit for an image of batch priority.
    ///
    /// # Errors
    /// `EngineGone` if the semaphores were closed, which they never are.
    pub(crate) async fn acquire_batch(&self) -> Result<Permit, Error> {
        self.acquire(&self.batch).await
    }

    async fn acquire(&self, class: &Arc<Semaphore>) -> Result<Permit, Error> {
        let closed = |_| Error::EngineGone;
        let class_permit = Arc::clone(class).acquire_owned().await.map_err(closed)?;
        let permit = Arc::clone(&self.pool.free).acquire_owned().await;
        let permit = permit.map_err(closed)?;
        Ok(Permit::new(&self.pool, permit, Some(class_permit), None))
    }

    /// Takes permits for the images of a request, or refuses at once. Images that are alone in the
    /// server are never refused because of their deadline.
    ///
    /// # Errors
    /// - `QueueFull`: there are not enough free permits.
    /// - `ShareFull`: there are, but the client holds its share of them while others need theirs.
    /// - `WaitTooLong`: the images are unlikely to be computed before their deadline.
    /// - `DeadlineExceeded`: they would not be even with an empty queue.
    pub(crate) fn admit(
        &self,
        client: &Client,
        images: usize,
        priority: Priority,
        deadline: Option<Instant>,
    ) -> Result<PermitSet, Error> {
        let now = Instant::now();
        let used = self.pool.used();
        let refuse = |semaphore: &Semaphore, limit: usize| Error::QueueFull {
            waiting: limit - semaphore.available_permits(),
            wanted: images,
            limit,
        };
        let acquired = self
            .quotas
            .acquire(client.clone(), images, priority, self.pool.capacity, now)
            .map_err(|exceeded| share_full(&exceeded, images))?;
        let ahead = match priority {
            Priority::Interactive => acquired.ahead,
            Priority::Batch => used,
        };
        let class_permit = match priority {
            Priority::Interactive => None,
            Priority::Batch => {
                let limit = batch_capacity(self.pool.capacity);
                let permit = take(&self.batch, images);
                Some(permit.ok_or_else(|| refuse(&self.batch, limit))?)
            }
        };
        let permit = take(&self.pool.free, images)
            .ok_or_else(|| refuse(&self.pool.free, self.pool.capacity))?;
        if ahead > 0
            && let Some(deadline) = deadline
        {
            let left = deadline.saturating_duration_since(now);
            if self.pool.wait.expected(images) > left {
                // A retry would not help.
                return Err(Error::DeadlineExceeded);
            }
            let expected = self.pool.wait.expected(ahead + images);
            if expected.mul_f64(DEADLINE_MARGIN) > left {
                return Err(Error::WaitTooLong {
                    ahead,
                    expected,
                    left,
                });
            }
        }
        Ok(PermitSet::new(
            Permit::new(&self.pool, permit, class_permit, Some(acquired.quota)),
            (priority == Priority::Interactive).then_some(ahead),
        ))
    }

    /// Takes up to `most` permits that are free at this moment, without waiting: for work that
    /// holds a permit already and is only faster with more.
    pub(crate) fn try_acquire_up_to(&self, most: usize, priority: Priority) -> Vec<Permit> {
        let mut permits = Vec::new();
        while permits.len() < most {
            let class_permit = match priority {
                Priority::Interactive => None,
                Priority::Batch => match take(&self.batch, 1) {
                    None => break,
                    permit => permit,
                },
            };
            let Some(permit) = take(&self.pool.free, 1) else {
                break;
            };
            permits.push(Permit::new(&self.pool, permit, class_permit, None));
        }
        permits
    }
}

fn take(semaphore: &Arc<Semaphore>, permits: usize) -> Option<OwnedSemaphorePermit> {
    let permits = u32::try_from(permits).ok()?;
    Arc::clone(semaphore).try_acquire_many_owned(permits).ok()
}

fn share_full(exceeded: &QuotaExceeded, wanted: usize) -> Error {
    Error::ShareFull {
        waiting: exceeded.held,
        wanted,
        share: exceeded.share,
        clients: exceeded.clients,
    }
}

fn background_capacity(capacity: usize) -> usize {
    (capacity / BACKGROUND_DIVISOR).max(1)
}

fn batch_capacity(capacity: usize) -> usize {
    capacity - capacity / RESERVED_DIVISOR
}
