//! The door: how many pictures may be in the server at once.
//!
//! A place is an argument of whatever costs memory or time, so no path can skip the door; it is free again when it is dropped.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::telemetry::metrics::{self, RejectionReason};

use super::{Error, Priority};

/// One place in so many is all that background work gets, so that a client's pictures wait for few others.
const BACKGROUND_SHARE: usize = 16;

/// Of so many places one is kept for pictures that somebody waits for.
const KEPT_SHARE: usize = 4;

/// Hands out places. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Door {
    free: Arc<Semaphore>,
    places: usize,
    /// The part of the places that pictures which nobody waits for may hold at once.
    unhurried: Arc<Semaphore>,
    /// The part of the places that background work may hold at once, whoever it is for.
    background: Arc<Semaphore>,
}

impl Door {
    /// A door with this many places behind it.
    pub fn new(places: usize) -> Self {
        Door {
            free: Arc::new(Semaphore::new(places)),
            places,
            unhurried: Arc::new(Semaphore::new(unhurried_places(places))),
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
            share: Some(share),
            door: self.clone(),
        };
        self.report();
        Ok(place)
    }

    /// Takes places for the pictures of a request, or refuses at once.
    ///
    /// # Errors
    /// `QueueFull`.
    pub fn admit(&self, images: usize, priority: Priority) -> Result<Admission, Error> {
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
        let share = match priority {
            Priority::Interactive => None,
            Priority::Batch => {
                let limit = unhurried_places(self.places);
                let share = take(&self.unhurried);
                Some(share.ok_or_else(|| refuse(&self.unhurried, limit))?)
            }
        };
        let permit = take(&self.free).ok_or_else(|| refuse(&self.free, self.places))?;
        self.report();
        Ok(Admission(Place {
            permit: Some(permit),
            share,
            door: self.clone(),
        }))
    }

    /// Takes as many places as are free, up to `most`, and waits for none: for work that has a place already and is only faster with more.
    pub fn admit_more(&self, most: usize) -> Vec<Place> {
        let mut places = Vec::new();
        while places.len() < most
            && let Ok(permit) = Arc::clone(&self.free).try_acquire_owned()
        {
            places.push(Place {
                permit: Some(permit),
                share: None,
                door: self.clone(),
            });
        }
        self.report();
        places
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
            share: self.0.share.as_mut().and_then(|share| share.split(1)),
            door: self.0.door.clone(),
        })
    }
}

/// The place of a picture in the server.
#[derive(Debug)]
pub struct Place {
    /// Set until it is dropped.
    permit: Option<OwnedSemaphorePermit>,
    /// Of the part that not everything may take; set for what nobody waits for.
    share: Option<OwnedSemaphorePermit>,
    door: Door,
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
        self.door.report();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_refused_when_all_are_taken_and_free_again_when_dropped() {
        let door = Door::new(3);
        let mut two = door.admit(2, Priority::Interactive).unwrap();
        let refused = door.admit(2, Priority::Interactive).unwrap_err();
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
        drop(door.admit(2, Priority::Interactive).unwrap());
        drop(first);
        assert!(door.admit(3, Priority::Interactive).is_ok());
    }

    #[test]
    fn what_nobody_waits_for_leaves_a_quarter_of_the_places() {
        let door = Door::new(8);
        let mut six = door.admit(6, Priority::Batch).unwrap();
        let refused = door.admit(1, Priority::Batch).unwrap_err();
        assert!(
            matches!(
                refused,
                Error::QueueFull {
                    waiting: 6,
                    wanted: 1,
                    limit: 6
                }
            ),
            "{refused:?}"
        );
        let _two = door.admit(2, Priority::Interactive).unwrap();
        assert!(door.admit(1, Priority::Interactive).is_err());
        // Each picture gives back its own place.
        drop(six.split().unwrap());
        assert!(door.admit(1, Priority::Batch).is_ok());
        assert!(door.admit(2, Priority::Batch).is_err());
    }

    #[test]
    fn a_request_has_as_many_places_as_it_was_given() {
        let mut admission = Door::new(5).admit(2, Priority::Interactive).unwrap();
        assert!(admission.split().is_some());
        assert!(admission.split().is_some());
        assert!(admission.split().is_none());
    }

    #[test]
    fn more_places_are_those_that_are_free() {
        let door = Door::new(5);
        let own = door.admit(2, Priority::Interactive).unwrap();
        assert_eq!(door.admit_more(2).len(), 2);
        let more = door.admit_more(10);
        assert_eq!(more.len(), 3);
        assert!(door.admit_more(1).is_empty());
        drop(more);
        drop(own);
        assert!(door.admit(5, Priority::Interactive).is_ok());
    }

    #[tokio::test]
    async fn background_work_waits_and_takes_a_sixteenth_of_the_places() {
        let door = Door::new(32);
        let first = door.admit_background().await.unwrap();
        let _second = door.admit_background().await.unwrap();
        // Others go on, also when they take all places that are left.
        let all_others = door.admit(30, Priority::Interactive).unwrap();
        let third = door.admit_background();
        tokio::pin!(third);
        let soon = std::time::Duration::from_millis(20);
        assert!(tokio::time::timeout(soon, &mut third).await.is_err());
        drop(first);
        let third = third.await.unwrap();
        drop(all_others);
        assert!(door.admit(30, Priority::Interactive).is_ok());
        drop(third);
        assert!(door.admit(31, Priority::Interactive).is_ok());
    }
}
