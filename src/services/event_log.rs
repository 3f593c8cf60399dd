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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        proto::v1::TrainingState,
        store::{self, Change, Inserted, Kind},
    };

    async fn store() -> (tempfile::TempDir, Store) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).await.unwrap();
        (directory, store)
    }

    async fn subject(store: &Store, id: &str, after: u64) -> Subject {
        Subject::Training {
            id: id.to_owned(),
            number: store.training_number(id).await.unwrap(),
            after,
        }
    }

    async fn insert(store: &Store, id: &str) {
        let training = v1::Training {
            name: format!("trainings/{id}"),
            ..Default::default()
        };
        let inserted = store.insert_training(training, None, 100).await.unwrap();
        assert!(matches!(inserted, Inserted::New(_)));
    }

    async fn append(store: &Store, id: &str, state: Option<TrainingState>) {
        let decide = move |training: &mut v1::Training| {
            training.state = state.map_or(training.state, i32::from);
            let epoch = v1::EpochMetrics::default();
            Ok::<_, store::Error>(Change::from(Kind::EpochCompleted(epoch)))
        };
        store.update(id, decide).await.unwrap();
    }

    async fn sequences(log: &EventLog, subject: &Subject) -> Vec<u64> {
        let latest = *log.store().subscribe().borrow();
        let page = log.reader(subject).page(subject, latest).await.unwrap();
        page.iter().map(|event| event.sequence).collect()
    }

    #[tokio::test]
    async fn streams_at_different_positions_get_the_events_after_theirs() {
        let (_directory, store) = store().await;
        insert(&store, "a").await;
        for _ in 0..3 {
            append(&store, "a", None).await;
        }
        let log = EventLog::new(store.clone());
        let ahead = subject(&store, "a", 3).await;
        // Keeps the shared events.
        let first = log.reader(&ahead);
        assert_eq!(sequences(&log, &ahead).await, [4]);
        let behind = subject(&store, "a", 0).await;
        assert_eq!(sequences(&log, &behind).await, [1, 2, 3, 4]);
        append(&store, "a", None).await;
        assert_eq!(sequences(&log, &ahead).await, [4, 5]);
        let end = subject(&store, "a", 5).await;
        assert_eq!(sequences(&log, &end).await, [0_u64; 0]);
        assert!(!first.is_finished(&end).await);
        append(&store, "a", Some(TrainingState::Cancelled)).await;
        assert_eq!(sequences(&log, &end).await, [6, 7]);
        assert!(!first.is_finished(&end).await);
        assert!(first.is_finished(&subject(&store, "a", 7).await).await);
    }

    #[tokio::test]
    async fn events_that_others_read_are_not_read_again() {
        let (_directory, store) = store().await;
        insert(&store, "a").await;
        let log = EventLog::new(store.clone());
        let start = subject(&store, "a", 0).await;
        let reader = log.reader(&start);
        assert_eq!(sequences(&log, &start).await, [1]);
        // Without the database the shared events are still there.
        let latest = *store.subscribe().borrow();
        store.close().await.unwrap();
        assert_eq!(reader.page(&start, latest).await.unwrap().len(), 1);
        assert!(reader.page(&start, latest + 1).await.is_err());
    }

    #[tokio::test]
    async fn position_past_the_end_does_not_affect_other_streams() {
        let (_directory, store) = store().await;
        insert(&store, "a").await;
        let log = EventLog::new(store.clone());
        let past = subject(&store, "a", 99).await;
        let _kept = log.reader(&past);
        let latest = *store.subscribe().borrow();
        assert!(log.reader(&past).page(&past, latest).await.is_err());
        let start = subject(&store, "a", 0).await;
        assert_eq!(sequences(&log, &start).await, [1]);
        append(&store, "a", None).await;
        assert_eq!(sequences(&log, &Subject::All { after: 0 }).await, [1, 2]);
    }

    #[tokio::test]
    async fn long_logs_are_read_in_pages() {
        let (_directory, store) = store().await;
        insert(&store, "a").await;
        for _ in 0..2 * PAGE {
            append(&store, "a", None).await;
        }
        let log = EventLog::new(store.clone());
        let mut found = Vec::new();
        let _kept = log.reader(&subject(&store, "a", 0).await);
        loop {
            let after = found.last().copied().unwrap_or(0);
            let page = sequences(&log, &subject(&store, "a", after).await).await;
            if page.is_empty() {
                break;
            }
            found.extend(page);
        }
        assert_eq!(found, (1..=u64::from(2 * PAGE) + 1).collect::<Vec<_>>());
    }
}
