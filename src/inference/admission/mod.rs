//! The admission: how many images may be in the server at once.
//!
//! A permit is an argument of whatever costs memory or time, so no path can skip the admission; it is free again when it is dropped.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::telemetry::metrics::{self, RejectionReason};

use super::{
    Error, Priority,
    client::Client,
    fairness::{ClientQuotas, QuotaExceeded},
    pace::WaitEstimator,
};

#[cfg(test)]
mod tests;

/// One permit in so many is all that background work gets, so that a client's images wait for few others.
const BACKGROUND_SHARE: usize = 16;

/// Of so many permits one is kept for images that somebody waits for.
const KEPT_SHARE: usize = 4;

/// A call is let in when its deadline leaves so many times the time that it is expected to take: a machine that is shared is slower by a third from one second
/// to the next, and an answer that comes too late is worth nothing and costs as much as any, while a shorter queue costs nothing as long as it is not empty.
const SPARE: f64 = 1.5;

/// Hands out permits. Cheap to clone.
#[derive(Debug, Clone)]
pub struct AdmissionController {
    free: Arc<Semaphore>,
    permits: usize,
    /// The part of the permits that images which nobody waits for may hold at once.
    batch_priority: Arc<Semaphore>,
    /// The part of the permits that background work may hold at once, whoever it is for.
    background: Arc<Semaphore>,
    /// How many each client has.
    shares: ClientQuotas,
    /// How fast they become free.
    pace: WaitEstimator,
}

impl AdmissionController {
    /// A admission with this many permits behind it.
    pub fn new(permits: usize) -> Self {
        AdmissionController {
            free: Arc::new(Semaphore::new(permits)),
            permits,
            batch_priority: Arc::new(Semaphore::new(unhurried_places(permits))),
            background: Arc::new(Semaphore::new(background_places(permits))),
            shares: ClientQuotas::default(),
            pace: WaitEstimator::default(),
        }
    }

    /// Places that background work may hold at once.
    pub fn background_places(&self) -> usize {
        background_places(self.permits)
    }

    /// Waits for a permit for an image that nobody waits for at this moment.
    ///
    /// # Errors
    /// `EngineGone` when the admission was closed, which it never is.
    pub async fn acquire_background(&self) -> Result<Permit, Error> {
        let closed = |_| Error::EngineGone;
        let share = Arc::clone(&self.background).acquire_owned();
        let share = share.await.map_err(closed)?;
        let permit = Arc::clone(&self.free).acquire_owned();
        Ok(self.permit(permit.await.map_err(closed)?, Some(share), None))
    }

    /// Waits for a permit for an image that nobody waits for, of a client that sends the next one when there is room for it.
    ///
    /// # Errors
    /// `EngineGone` when the admission was closed, which it never is.
    pub async fn acquire_batch(&self) -> Result<Permit, Error> {
        let closed = |_| Error::EngineGone;
        let share = Arc::clone(&self.batch_priority).acquire_owned();
        let share = share.await.map_err(closed)?;
        let permit = Arc::clone(&self.free).acquire_owned();
        Ok(self.permit(permit.await.map_err(closed)?, Some(share), None))
    }

    /// Takes permits for the images of a client's request, or refuses at once. Those that are alone in the server are never refused for their deadline.
    ///
    /// # Errors
    /// `QueueFull`; `ShareFull` when there is room, and the client has its share of it while others want theirs; `WaitTooLong` when their turn will hardly come
    /// before the deadline, `DeadlineExceeded` when it would not even without those before them.
    pub fn admit(
        &self,
        client: &Client,
        images: usize,
        priority: Priority,
        deadline: Option<Instant>,
    ) -> Result<PermitSet, Error> {
        let now = Instant::now();
        let take = |from: &Arc<Semaphore>| {
            let wanted = u32::try_from(images).ok()?;
            Arc::clone(from).try_acquire_many_owned(wanted).ok()
        };
        let refuse = |from: &Semaphore, limit: usize| {
            metrics::prediction_rejected(RejectionReason::QueueFull);
            Error::QueueFull {
                waiting: limit - from.available_permits(),
                wanted: images,
                limit,
            }
        };
        let all_before = self.permits - self.free.available_permits();
        let taken = self
            .shares
            .take(client.clone(), images, priority, self.permits, now)
            .map_err(|full| {
                metrics::prediction_rejected(RejectionReason::ShareFull);
                share_full(&full, images)
            })?;
        // Counts them back wherever this is left.
        let counted = Counted {
            client: taken.client,
            permits: images,
            priority,
            shares: self.shares.clone(),
        };
        let before = match priority {
            Priority::Interactive => taken.before,
            Priority::Batch => all_before,
        };
        let share = match priority {
            Priority::Interactive => None,
            Priority::Batch => {
                let limit = unhurried_places(self.permits);
                let share = take(&self.batch_priority);
                Some(share.ok_or_else(|| refuse(&self.batch_priority, limit))?)
            }
        };
        let permit = take(&self.free).ok_or_else(|| refuse(&self.free, self.permits))?;
        if before > 0
            && let Some(deadline) = deadline
        {
            let left = deadline.saturating_duration_since(now);
            // Trying again would not help.
            if self.pace.expected(images) > left {
                metrics::prediction_rejected(RejectionReason::DeadlineExceeded);
                return Err(Error::DeadlineExceeded);
            }
            let expected = self.pace.expected(before + images);
            if expected.mul_f64(SPARE) > left {
                metrics::prediction_rejected(RejectionReason::WaitTooLong);
                return Err(Error::WaitTooLong {
                    before,
                    expected,
                    left,
                });
            }
        }
        Ok(PermitSet {
            all: self.permit(permit, share, Some(counted)),
            before: (priority == Priority::Interactive).then_some(before),
        })
    }

    /// Takes as many permits as are free for images of this priority, up to `most`, and waits for none: for work that has a permit already and is only faster
    /// with more.
    pub fn admit_more(&self, most: usize, priority: Priority) -> Vec<Permit> {
        let take = |from: &Arc<Semaphore>| Arc::clone(from).try_acquire_owned().ok();
        let mut permits = Vec::new();
        while permits.len() < most {
            let share = match priority {
                Priority::Interactive => None,
                Priority::Batch => match take(&self.batch_priority) {
                    None => break,
                    share => share,
                },
            };
            let Some(permit) = take(&self.free) else {
                break;
            };
            permits.push(self.permit(permit, share, None));
        }
        permits
    }

    fn permit(
        &self,
        permit: OwnedSemaphorePermit,
        share: Option<OwnedSemaphorePermit>,
        counted: Option<Counted>,
    ) -> Permit {
        let permit = Permit {
            permit: Some(permit),
            share,
            counted,
            depth: None,
            admission: self.clone(),
        };
        self.report();
        permit
    }

    fn report(&self) {
        metrics::prediction_queue_depth(self.permits - self.free.available_permits());
    }
}

/// The right to have this many images in the server; without it nothing is decoded.
#[derive(Debug)]
pub struct PermitSet {
    all: Permit,
    /// How many others are before the next image, where somebody waits for it.
    before: Option<usize>,
}

impl PermitSet {
    /// The permit of one image; `None` when all have been taken.
    pub fn split(&mut self) -> Option<Permit> {
        let permit = self.all.permit.as_mut()?.split(1)?;
        self.before = self.before.map(|before| before + 1);
        Some(Permit {
            permit: Some(permit),
            share: self.all.share.as_mut().and_then(|share| share.split(1)),
            counted: self.all.counted.as_mut().and_then(Counted::split),
            depth: self.before,
            admission: self.all.admission.clone(),
        })
    }
}

/// The permit of an image in the server.
#[derive(Debug)]
pub struct Permit {
    /// Set until it is dropped.
    permit: Option<OwnedSemaphorePermit>,
    /// Of the part that not everything may take; set for what nobody waits for.
    share: Option<OwnedSemaphorePermit>,
    /// Whose it is; unset for what no client is to be refused for.
    counted: Option<Counted>,
    /// How many had to be computed until it was, itself included; unset for what nobody waits for, which lets others go before it.
    depth: Option<usize>,
    admission: AdmissionController,
}

impl Permit {
    /// The image was computed so long after it was ready to be, by which others are told how long they will wait.
    pub fn was_computed(&self, took: Duration) {
        if let Some(depth) = self.depth {
            self.admission.pace.record(depth, took);
        }
    }
}

/// Places that count as a client's until this is dropped.
#[derive(Debug)]
struct Counted {
    client: Client,
    permits: usize,
    priority: Priority,
    shares: ClientQuotas,
}

impl Counted {
    fn split(&mut self) -> Option<Self> {
        self.permits = self.permits.checked_sub(1)?;
        Some(Counted {
            client: self.client.clone(),
            permits: 1,
            priority: self.priority,
            shares: self.shares.clone(),
        })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.shares
            .give_back(&self.client, self.permits, self.priority);
    }
}

fn share_full(full: &QuotaExceeded, wanted: usize) -> Error {
    Error::ShareFull {
        waiting: full.held,
        wanted,
        share: full.share,
        clients: full.clients,
    }
}

fn background_places(permits: usize) -> usize {
    (permits / BACKGROUND_SHARE).max(1)
}

fn unhurried_places(permits: usize) -> usize {
    permits - permits / KEPT_SHARE
}

impl Drop for Permit {
    fn drop(&mut self) {
        // Freed first, so that the metric counts without it.
        self.permit = None;
        self.share = None;
        self.counted = None;
        self.admission.report();
    }
}
