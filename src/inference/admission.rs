//! The door: how many pictures may be in the server at once.
//!
//! A place is an argument of whatever costs memory or time, so no path can skip the door; it is free again when it is dropped.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::telemetry::metrics::{self, RejectionReason};

use super::Error;

/// One place in so many is all that background work gets, so that a client's pictures wait for few others.
const BACKGROUND_SHARE: usize = 16;

/// Hands out places. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Door {
    free: Arc<Semaphore>,
    places: usize,
    /// The part of the places that background work may hold at once, whoever it is for.
    background: Arc<Semaphore>,
}

impl Door {
    /// A door with this many places behind it.
    pub fn new(places: usize) -> Self {
        Door {
            free: Arc::new(Semaphore::new(places)),
            places,
            background: Arc::new(Semaphore::new(background_places(places))),
        }
    }

    /// Places that background work may hold at once.
    pub fn background_places(&self) -> usize {
        background_places(self.places)
    }

    /// Waits for a place for a picture that nobody waits for at this moment.
    ///
    /// # Errors
    /// `EngineGone` when the door was closed, which it never is.
    pub async fn admit_background(&self) -> Result<Place, Error> {
        let closed = |_| Error::EngineGone;
        let share = Arc::clone(&self.background).acquire_owned();
        let share = share.await.map_err(closed)?;
        let permit = Arc::clone(&self.free).acquire_owned();
        let place = Place {
            permit: Some(permit.await.map_err(closed)?),
            background: Some(share),
            door: self.clone(),
        };
        self.report();
        Ok(place)
    }

    /// Takes places for the pictures of a request, or refuses at once.
    ///
    /// # Errors
    /// `QueueFull`.
    pub fn admit(&self, images: usize) -> Result<Admission, Error> {
        let wanted = u32::try_from(images).ok();
        let permit =
            wanted.and_then(|wanted| Arc::clone(&self.free).try_acquire_many_owned(wanted).ok());
        let Some(permit) = permit else {
            metrics::prediction_rejected(RejectionReason::QueueFull);
            return Err(Error::QueueFull {
                waiting: self.places - self.free.available_permits(),
                wanted: images,
                limit: self.places,
            });
        };
        self.report();
        Ok(Admission(Place {
            permit: Some(permit),
            background: None,
            door: self.clone(),
        }))
    }

    fn report(&self) {
        metrics::prediction_queue_depth(self.places - self.free.available_permits());
    }
}

/// The right to have this many pictures in the server; without it nothing is decoded.
#[derive(Debug)]
pub struct Admission(Place);

impl Admission {
    /// The place of one picture; `None` when all have been taken.
    pub fn split(&mut self) -> Option<Place> {
        Some(Place {
            permit: Some(self.0.permit.as_mut()?.split(1)?),
            background: None,
            door: self.0.door.clone(),
        })
    }
}

/// The place of a picture in the server.
#[derive(Debug)]
pub struct Place {
    /// Set until it is dropped.
    permit: Option<OwnedSemaphorePermit>,
    /// Set for background work.
    background: Option<OwnedSemaphorePermit>,
    door: Door,
}

fn background_places(places: usize) -> usize {
    (places / BACKGROUND_SHARE).max(1)
}

impl Drop for Place {
    fn drop(&mut self) {
        // Freed first, so that the metric counts without it.
        self.permit = None;
        self.background = None;
        self.door.report();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_refused_when_all_are_taken_and_free_again_when_dropped() {
        let door = Door::new(3);
        let mut two = door.admit(2).unwrap();
        let refused = door.admit(2).unwrap_err();
        assert!(
            matches!(
                refused,
                Error::QueueFull {
                    waiting: 2,
                    wanted: 2,
                    limit: 3
                }
            ),
            "{refused:?}"
        );
        let first = two.split().unwrap();
        drop(two);
        drop(door.admit(2).unwrap());
        drop(first);
        assert!(door.admit(3).is_ok());
    }

    #[test]
    fn a_request_has_as_many_places_as_it_was_given() {
        let mut admission = Door::new(5).admit(2).unwrap();
        assert!(admission.split().is_some());
        assert!(admission.split().is_some());
        assert!(admission.split().is_none());
    }

    #[tokio::test]
    async fn background_work_waits_and_takes_a_sixteenth_of_the_places() {
        let door = Door::new(32);
        let first = door.admit_background().await.unwrap();
        let _second = door.admit_background().await.unwrap();
        // Others go on, also when they take all places that are left.
        let all_others = door.admit(30).unwrap();
        let third = door.admit_background();
        tokio::pin!(third);
        let soon = std::time::Duration::from_millis(20);
        assert!(tokio::time::timeout(soon, &mut third).await.is_err());
        drop(first);
        let third = third.await.unwrap();
        drop(all_others);
        assert!(door.admit(30).is_ok());
        drop(third);
        assert!(door.admit(31).is_ok());
    }
}
