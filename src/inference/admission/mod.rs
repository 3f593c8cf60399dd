//! The door: how many images may be in the server at once.
//!
//! A place is an argument of whatever costs memory or time, so no path can skip the door; it is free again when it is dropped.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::telemetry::metrics::{self, RejectionReason};

use super::{
    Error, Priority,
    client::Client,
    fairness::{Full, Shares},
    pace::Pace,
};

#[cfg(test)]
mod tests;

/// One place in so many is all that background work gets, so that a client's images wait for few others.
const BACKGROUND_SHARE: usize = 16;

/// Of so many places one is kept for images that somebody waits for.
const KEPT_SHARE: usize = 4;

/// A call is let in when its deadline leaves so many times the time that it is expected to take: a machine that is shared is slower by a third from one second
/// to the next, and an answer that comes too late is worth nothing and costs as much as any, while a shorter queue costs nothing as long as it is not empty.
const SPARE: f64 = 1.5;

/// Hands out places. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Door {
    free: Arc<Semaphore>,
    places: usize,
    /// The part of the places that images which nobody waits for may hold at once.
    unhurried: Arc<Semaphore>,
    /// The part of the places that background work may hold at once, whoever it is for.
    background: Arc<Semaphore>,
    /// How many each client has.
    shares: Shares,
    /// How fast they become free.
    pace: Pace,
}

impl Door {
    /// A door with this many places behind it.
    pub fn new(places: usize) -> Self {
        Door {
            free: Arc::new(Semaphore::new(places)),
            places,
            unhurried: Arc::new(Semaphore::new(unhurried_places(places))),
            background: Arc::new(Semaphore::new(background_places(places))),
            shares: Shares::default(),
            pace: Pace::default(),
        }
    }

    /// Places that background work may hold at once.
    pub fn background_places(&self) -> usize {
        background_places(self.places)
    }

    /// Waits for a place for an image that nobody waits for at this moment.
    ///
    /// # Errors
    /// `EngineGone` when the door was closed, which it never is.
    pub async fn admit_background(&self) -> Result<Place, Error> {
        let closed = |_| Error::EngineGone;
        let share = Arc::clone(&self.background).acquire_owned();
        let share = share.await.map_err(closed)?;
        let permit = Arc::clone(&self.free).acquire_owned();
        Ok(self.place(permit.await.map_err(closed)?, Some(share), None))
    }

    /// Waits for a place for an image that nobody waits for, of a client that sends the next one when there is room for it.
    ///
    /// # Errors
    /// `EngineGone` when the door was closed, which it never is.
    pub async fn admit_patiently(&self) -> Result<Place, Error> {
        let closed = |_| Error::EngineGone;
        let share = Arc::clone(&self.unhurried).acquire_owned();
        let share = share.await.map_err(closed)?;
        let permit = Arc::clone(&self.free).acquire_owned();
        Ok(self.place(permit.await.map_err(closed)?, Some(share), None))
    }

    /// Takes places for the images of a client's request, or refuses at once. Those that are alone in the server are never refused for their deadline.
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
    ) -> Result<Admission, Error> {
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
        let all_before = self.places - self.free.available_permits();
        let taken = self
            .shares
            .take(client.clone(), images, priority, self.places, now)
            .map_err(|full| {
                metrics::prediction_rejected(RejectionReason::ShareFull);
                share_full(&full, images)
            })?;
        // Counts them back wherever this is left.
        let counted = Counted {
            client: taken.client,
            places: images,
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
                let limit = unhurried_places(self.places);
                let share = take(&self.unhurried);
                Some(share.ok_or_else(|| refuse(&self.unhurried, limit))?)
            }
        };
        let permit = take(&self.free).ok_or_else(|| refuse(&self.free, self.places))?;
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
        Ok(Admission {
            all: self.place(permit, share, Some(counted)),
            before: (priority == Priority::Interactive).then_some(before),
        })
    }

    /// Takes as many places as are free for images of this priority, up to `most`, and waits for none: for work that has a place already and is only faster
    /// with more.
    pub fn admit_more(&self, most: usize, priority: Priority) -> Vec<Place> {
        let take = |from: &Arc<Semaphore>| Arc::clone(from).try_acquire_owned().ok();
        let mut places = Vec::new();
        while places.len() < most {
            let share = match priority {
                Priority::Interactive => None,
                Priority::Batch => match take(&self.unhurried) {
                    None => break,
                    share => share,
                },
            };
            let Some(permit) = take(&self.free) else {
                break;
            };
            places.push(self.place(permit, share, None));
        }
        places
    }

    fn place(
        &self,
        permit: OwnedSemaphorePermit,
        share: Option<OwnedSemaphorePermit>,
        counted: Option<Counted>,
    ) -> Place {
        let place = Place {
            permit: Some(permit),
            share,
            counted,
            depth: None,
            door: self.clone(),
        };
        self.report();
        place
    }

    fn report(&self) {
        metrics::prediction_queue_depth(self.places - self.free.available_permits());
    }
}

/// The right to have this many images in the server; without it nothing is decoded.
#[derive(Debug)]
pub struct Admission {
    all: Place,
    /// How many others are before the next image, where somebody waits for it.
    before: Option<usize>,
}

impl Admission {
    /// The place of one image; `None` when all have been taken.
    pub fn split(&mut self) -> Option<Place> {
        let permit = self.all.permit.as_mut()?.split(1)?;
        self.before = self.before.map(|before| before + 1);
        Some(Place {
            permit: Some(permit),
            share: self.all.share.as_mut().and_then(|share| share.split(1)),
            counted: self.all.counted.as_mut().and_then(Counted::split),
            depth: self.before,
            door: self.all.door.clone(),
        })
    }
}

/// The place of an image in the server.
#[derive(Debug)]
pub struct Place {
    /// Set until it is dropped.
    permit: Option<OwnedSemaphorePermit>,
    /// Of the part that not everything may take; set for what nobody waits for.
    share: Option<OwnedSemaphorePermit>,
    /// Whose it is; unset for what no client is to be refused for.
    counted: Option<Counted>,
    /// How many had to be computed until it was, itself included; unset for what nobody waits for, which lets others go before it.
    depth: Option<usize>,
    door: Door,
}

impl Place {
    /// The image was computed so long after it was ready to be, by which others are told how long they will wait.
    pub fn was_computed(&self, took: Duration) {
        if let Some(depth) = self.depth {
            self.door.pace.saw(depth, took);
        }
    }
}

/// Places that count as a client's until this is dropped.
#[derive(Debug)]
struct Counted {
    client: Client,
    places: usize,
    priority: Priority,
    shares: Shares,
}

impl Counted {
    fn split(&mut self) -> Option<Self> {
        self.places = self.places.checked_sub(1)?;
        Some(Counted {
            client: self.client.clone(),
            places: 1,
            priority: self.priority,
            shares: self.shares.clone(),
        })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.shares
            .give_back(&self.client, self.places, self.priority);
    }
}

fn share_full(full: &Full, wanted: usize) -> Error {
    Error::ShareFull {
        waiting: full.held,
        wanted,
        share: full.share,
        clients: full.clients,
    }
}

fn background_places(places: usize) -> usize {
    (places / BACKGROUND_SHARE).max(1)
}

fn unhurried_places(places: usize) -> usize {
    places - places / KEPT_SHARE
}

impl Drop for Place {
    fn drop(&mut self) {
        // Freed first, so that the metric counts without it.
        self.permit = None;
        self.share = None;
        self.counted = None;
        self.door.report();
    }
}
