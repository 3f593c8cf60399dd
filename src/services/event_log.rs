//! The latest events of trainings, read once for all streams that follow the same trainings.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio::sync::Mutex as AsyncMutex;
use tonic::Status;

use super::{event_stream::Subject, status};
use crate::{
    proto::v1,
    store::{Store, is_final, parse_token},
};

/// Events of a read, and of a page for a stream.
pub(super) const PAGE: u32 = 256;
/// Kept events; a stream further behind reads the database itself.
const KEPT: usize = 256;

/// Trainings that are followed.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Key {
    /// By the number of its row.
    Training(i64),
    All,
}

/// Reads events for streams. Cheap to clone.
#[derive(Clone)]
pub(crate) struct EventLog {
    store: Store,
    tails: Arc<Mutex<HashMap<Key, Weak<AsyncMutex<Tail>>>>>,
}

/// The events of one subject, for one stream.
pub(super) struct Reader {
    store: Store,
    tail: Arc<AsyncMutex<Tail>>,
}

/// Positions are sequences of one training, or cursors of all.
#[derive(Default)]
struct Tail {
    /// Events after `start`, up to `end`, without a gap.
    events: VecDeque<(i64, v1::TrainingEvent)>,
    start: i64,
    end: i64,
    /// The latest event of the database, of any training, when `end` was the end; `None` if there
    /// may be more.
    seen: Option<i64>,
    /// The training has ended, at this position.
    ended: Option<i64>,
}

impl EventLog {
    pub(crate) fn new(store: Store) -> Self {
        Self {
            store,
            tails: Arc::default(),
        }
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    pub(super) fn reader(&self, subject: &Subject) -> Reader {
        let key = match subject {
            Subject::Training { number, .. } => Key::Training(*number),
            Subject::All { .. } => Key::All,
        };
        let mut tails = self.tails.lock().unwrap_or_else(PoisonError::into_inner);
        let tail = tails.get(&key).and_then(Weak::upgrade).unwrap_or_else(|| {
            tails.retain(|_, tail| tail.strong_count() > 0);
            let tail = Arc::default();
            tails.insert(key, Arc::downgrade(&tail));
            tail
        });
        Reader {
            store: self.store.clone(),
            tail,
        }
    }
}

impl Reader {
    /// Returns the next events of a subject, at most [`PAGE`]; none at the end of the log. `latest`
    /// is the latest event of any training that the caller knows.
    ///
    /// # Errors
    /// NOT_FOUND for a training that was deleted or replaced, OUT_OF_RANGE for a cursor past the
    /// end.
    pub(super) async fn page(
        &self,
        subject: &Subject,
        latest: i64,
    ) -> Result<Vec<v1::TrainingEvent>, Status> {
        let after = position(subject);
        let mut tail = self.tail.lock().await;
        let is_current = tail.seen.is_some_and(|seen| seen >= latest);
        let is_unused = tail.seen.is_none() && tail.events.is_empty();
        if is_unused {
            // Where the first stream is. A position past the end fails the read.
            (tail.start, tail.end) = (after, after);
        }
        if !is_current && after >= tail.start {
            self.refresh(&mut tail, subject, latest).await?;
        }
        if (tail.start..=tail.end).contains(&after) {
            return Ok(tail.after(after));
        }
        drop(tail);
        self.read(subject, after).await
    }

    /// Returns true if the training ended at or before the subject's position.
    pub(super) async fn is_finished(&self, subject: &Subject) -> bool {
        let ended = self.tail.lock().await.ended;
        matches!(subject, Subject::Training { .. })
            && ended.is_some_and(|ended| ended <= position(subject))
    }

    /// Reads the events after the end.
    async fn refresh(&self, tail: &mut Tail, subject: &Subject, latest: i64) -> Result<(), Status> {
        let events = self.read(subject, tail.end).await?;
        let ended = match subject {
            Subject::Training { id, .. } => {
                let training = self.store.training(id).await?;
                let last = training.last_sequence.cast_signed();
                is_final(training.state()).then_some(last)
            }
            Subject::All { .. } => None,
        };
        // Without an await from here on: the stream may be dropped at one.
        tail.seen = (events.len() < PAGE as usize).then_some(latest);
        for event in events {
            let position = match subject {
                Subject::Training { .. } => event.sequence.cast_signed(),
                Subject::All { .. } => parse_token(&event.resume_token)?,
            };
            tail.end = position;
            tail.events.push_back((position, event));
        }
        while tail.events.len() > KEPT {
            if let Some((position, _)) = tail.events.pop_front() {
                tail.start = position;
            }
        }
        tail.ended = ended;
        Ok(())
    }

    async fn read(&self, subject: &Subject, after: i64) -> Result<Vec<v1::TrainingEvent>, Status> {
        let page = match subject {
            Subject::Training { id, number, .. } => {
                let page = self
                    .store
                    .events_after(id, after.cast_unsigned(), PAGE)
                    .await;
                // After the events, which may be those of a later training otherwise.
                if self.store.training_number(id).await? != *number {
                    return Err(status::training_replaced(id));
                }
                page
            }
            Subject::All { .. } => self.store.events_after_global(after, PAGE).await,
        };
        Ok(page?.items)
    }
}

impl Tail {
    fn after(&self, position: i64) -> Vec<v1::TrainingEvent> {
        let first = self.events.partition_point(|(found, _)| *found <= position);
        let events = self.events.iter().skip(first);
        events.map(|(_, event)| event.clone()).collect()
    }
}

fn position(subject: &Subject) -> i64 {
    match subject {
        Subject::Training { after, .. } => i64::try_from(*after).unwrap_or(i64::MAX),
        Subject::All { after } => *after,
    }
}
