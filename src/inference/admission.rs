//! The door: how many pictures may be in the server at once.
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

/// One place in so many is all that background work gets, so that a client's pictures wait for few others.
const BACKGROUND_SHARE: usize = 16;

/// Of so many places one is kept for pictures that somebody waits for.
const KEPT_SHARE: usize = 4;

/// A call is let in when its deadline leaves so many times the time that it is expected to take: what is expected is off by a fifth easily, and an answer that
/// comes too late is worth nothing and costs as much as any.
const SPARE: f64 = 1.25;

/// Hands out places. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Door {
    free: Arc<Semaphore>,
    places: usize,
    /// The part of the places that pictures which nobody waits for may hold at once.
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

    /// Waits for a place for a picture that nobody waits for at this moment.
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

    /// Waits for a place for a picture that nobody waits for, of a client that sends the next one when there is room for it.
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

    /// Takes places for the pictures of a client's request, or refuses at once. Those that are alone in the server are never refused for their deadline.
    ///
    /// # Errors
    /// `QueueFull`; `ShareFull` when there is room, and the client has its share of it while others want theirs; `WaitTooLong` when their turn will hardly come
    /// before the deadline.
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

    /// Takes as many places as are free for pictures of this priority, up to `most`, and waits for none: for work that has a place already and is only faster
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

/// The right to have this many pictures in the server; without it nothing is decoded.
#[derive(Debug)]
pub struct Admission {
    all: Place,
    /// How many others are before the next picture, where somebody waits for it.
    before: Option<usize>,
}

impl Admission {
    /// The place of one picture; `None` when all have been taken.
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

/// The place of a picture in the server.
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
    /// The picture was computed so long after it was ready to be, by which others are told how long they will wait.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn one() -> Client {
        Client::new("one")
    }

    #[test]
    fn places_are_refused_when_all_are_taken_and_free_again_when_dropped() {
        let door = Door::new(3);
        let mut two = door.admit(&one(), 2, Priority::Interactive, None).unwrap();
        let refused = door
            .admit(&one(), 2, Priority::Interactive, None)
            .unwrap_err();
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
        drop(door.admit(&one(), 2, Priority::Interactive, None).unwrap());
        drop(first);
        assert!(door.admit(&one(), 3, Priority::Interactive, None).is_ok());
    }

    #[test]
    fn what_nobody_waits_for_leaves_a_quarter_of_the_places() {
        let door = Door::new(8);
        let mut six = door.admit(&one(), 6, Priority::Batch, None).unwrap();
        let refused = door.admit(&one(), 1, Priority::Batch, None).unwrap_err();
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
        let _two = door.admit(&one(), 2, Priority::Interactive, None).unwrap();
        assert!(door.admit(&one(), 1, Priority::Interactive, None).is_err());
        // Each picture gives back its own place.
        drop(six.split().unwrap());
        assert!(door.admit(&one(), 1, Priority::Batch, None).is_ok());
        assert!(door.admit(&one(), 2, Priority::Batch, None).is_err());
    }

    #[test]
    fn a_request_has_as_many_places_as_it_was_given() {
        let mut admission = Door::new(5)
            .admit(&one(), 2, Priority::Interactive, None)
            .unwrap();
        assert!(admission.split().is_some());
        assert!(admission.split().is_some());
        assert!(admission.split().is_none());
    }

    #[test]
    fn more_places_are_those_that_are_free() {
        let door = Door::new(5);
        let own = door.admit(&one(), 2, Priority::Interactive, None).unwrap();
        assert_eq!(door.admit_more(2, Priority::Interactive).len(), 2);
        let more = door.admit_more(10, Priority::Interactive);
        assert_eq!(more.len(), 3);
        assert!(door.admit_more(1, Priority::Interactive).is_empty());
        drop(more);
        drop(own);
        assert!(door.admit(&one(), 5, Priority::Interactive, None).is_ok());
    }

    #[test]
    fn more_places_for_what_nobody_waits_for_leave_a_quarter_too() {
        let door = Door::new(8);
        let _own = door.admit(&one(), 2, Priority::Batch, None).unwrap();
        let more = door.admit_more(10, Priority::Batch);
        assert_eq!(more.len(), 4);
        assert!(door.admit(&one(), 2, Priority::Interactive, None).is_ok());
        drop(more);
        assert_eq!(door.admit_more(1, Priority::Batch).len(), 1);
    }

    #[tokio::test]
    async fn background_work_waits_and_takes_a_sixteenth_of_the_places() {
        let door = Door::new(32);
        let first = door.admit_background().await.unwrap();
        let _second = door.admit_background().await.unwrap();
        // Others go on, also when they take all places that are left.
        let all_others = door.admit(&one(), 30, Priority::Interactive, None).unwrap();
        let third = door.admit_background();
        tokio::pin!(third);
        let soon = std::time::Duration::from_millis(20);
        assert!(tokio::time::timeout(soon, &mut third).await.is_err());
        drop(first);
        let third = third.await.unwrap();
        drop(all_others);
        assert!(door.admit(&one(), 30, Priority::Interactive, None).is_ok());
        drop(third);
        assert!(door.admit(&one(), 31, Priority::Interactive, None).is_ok());
    }

    #[test]
    fn client_that_asks_much_leaves_room_for_another() {
        let door = Door::new(8);
        let mut all = door.admit(&one(), 7, Priority::Interactive, None).unwrap();
        let other = Client::new("other");
        let _little = door.admit(&other, 1, Priority::Interactive, None).unwrap();
        drop((0..4).map(|_| all.split().unwrap()).collect::<Vec<_>>());
        // Four places are free, and three of its own share of four are taken.
        let fourth = door.admit(&one(), 1, Priority::Interactive, None).unwrap();
        let refused = door
            .admit(&one(), 1, Priority::Interactive, None)
            .unwrap_err();
        assert!(
            matches!(
                refused,
                Error::ShareFull {
                    waiting: 4,
                    wanted: 1,
                    share: 4,
                    clients: 2
                }
            ),
            "{refused:?}"
        );
        assert!(door.admit(&other, 3, Priority::Interactive, None).is_ok());
        drop(fourth);
        assert!(door.admit(&one(), 1, Priority::Interactive, None).is_ok());
    }

    #[test]
    fn request_that_is_refused_takes_nothing_of_its_clients_share() {
        let door = Door::new(4);
        let _other = door.admit(&Client::new("other"), 3, Priority::Interactive, None);
        for _ in 0..3 {
            let refused = door
                .admit(&one(), 2, Priority::Interactive, None)
                .unwrap_err();
            assert!(matches!(refused, Error::QueueFull { .. }), "{refused:?}");
        }
        assert!(door.admit(&one(), 1, Priority::Interactive, None).is_ok());
    }

    #[tokio::test]
    async fn patient_work_waits_for_its_part_of_the_places() {
        let door = Door::new(4);
        let mut places = Vec::new();
        for _ in 0..3 {
            places.push(door.admit_patiently().await.unwrap());
        }
        let fourth = door.admit_patiently();
        tokio::pin!(fourth);
        assert!(futures_util::poll!(&mut fourth).is_pending());
        assert!(door.admit(&one(), 1, Priority::Interactive, None).is_ok());
        places.pop();
        assert!(futures_util::poll!(&mut fourth).is_ready());
    }

    fn in_ms(milliseconds: u64) -> Option<Instant> {
        Some(Instant::now() + Duration::from_millis(milliseconds))
    }

    /// A door behind which eight pictures take 80 ms.
    fn door_with_pace() -> Door {
        let door = Door::new(100);
        let mut eight = door.admit(&one(), 8, Priority::Interactive, None).unwrap();
        let places = Vec::from_iter(std::iter::from_fn(|| eight.split()));
        for (before, place) in places.iter().enumerate() {
            let each = Duration::from_millis(10);
            place.was_computed(each * u32::try_from(before + 1).unwrap());
        }
        door
    }

    #[test]
    fn what_cannot_be_computed_before_its_deadline_is_refused_at_once() {
        let door = door_with_pace();
        let _before = door.admit(&one(), 9, Priority::Interactive, None).unwrap();
        // Ten take 100 ms, and a quarter more is asked for.
        let refused = door.admit(&one(), 1, Priority::Interactive, in_ms(120));
        let refused = refused.unwrap_err();
        let Error::WaitTooLong {
            before,
            expected,
            left,
        } = refused
        else {
            panic!("{refused:?}");
        };
        assert_eq!(before, 9);
        assert!((expected.as_secs_f64() - 0.1).abs() < 1e-6, "{expected:?}");
        assert!(left <= Duration::from_millis(120), "{left:?}");
        // It took nothing: there is room for all that are left.
        drop(door.admit(&one(), 91, Priority::Interactive, None).unwrap());
        assert!(
            door.admit(&one(), 1, Priority::Interactive, in_ms(10_000))
                .is_ok()
        );
    }

    #[test]
    fn picture_that_is_alone_is_never_refused_for_its_deadline() {
        let door = door_with_pace();
        let late = door.admit(&one(), 1, Priority::Interactive, in_ms(0));
        assert!(late.is_ok(), "{late:?}");
    }

    #[test]
    fn picture_of_another_client_has_its_turn_before_its_deadline() {
        let door = door_with_pace();
        let _much = door.admit(&one(), 30, Priority::Interactive, None).unwrap();
        let other = Client::new("other");
        // One before it and itself: 20 ms.
        let little = door.admit(&other, 1, Priority::Interactive, in_ms(200));
        assert!(little.is_ok(), "{little:?}");
        let refused = door.admit(&one(), 1, Priority::Interactive, in_ms(200));
        assert!(
            matches!(refused, Err(Error::WaitTooLong { before: 31, .. })),
            "{refused:?}"
        );
    }

    #[test]
    fn what_nobody_waits_for_comes_behind_all_others() {
        let door = door_with_pace();
        let _before = door.admit(&one(), 20, Priority::Batch, None).unwrap();
        let batch = door.admit(&one(), 1, Priority::Batch, in_ms(200));
        assert!(
            matches!(batch, Err(Error::WaitTooLong { before: 20, .. })),
            "{batch:?}"
        );
        let interactive = door.admit(&one(), 1, Priority::Interactive, in_ms(200));
        assert!(interactive.is_ok(), "{interactive:?}");
    }
}
