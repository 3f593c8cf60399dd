//! Inserting trainings into the queue.

use std::time::SystemTime;

use prost::Message;
use prost_types::Timestamp;
use sqlx::SqliteConnection;

use crate::proto::v1::{self as pb, TrainingState};

use super::{
    Error, Store, datasets,
    events::{Kind, Log, kinds},
    labels::insert_labels,
    trainings::{delete_row, find, state_changed},
    transaction::{WriteTx, run_detached},
};

/// Identifies a request, so that StartTraining is idempotent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RequestId {
    /// Identity that sent the request; empty without authentication.
    pub owner: String,
    /// UUID of the client.
    pub id: String,
    /// Digest of the request without its id; a repeated id with another fingerprint is refused.
    pub fingerprint: String,
}

/// Numbers of trainings that may exist, including a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TrainingLimits {
    pub queued: usize,
    /// Ended ones included.
    pub stored: usize,
}

impl From<usize> for TrainingLimits {
    /// A limit of the queue alone.
    fn from(queued: usize) -> Self {
        TrainingLimits {
            queued,
            stored: usize::MAX,
        }
    }
}

/// Result of inserting a training.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Inserted {
    New(pb::Training),
    /// As `New`, in place of an ended training that had the same id and trained nothing.
    Replaced(pb::Training),
    /// The training that the request id was used for before.
    Existing(pb::Training),
}

impl Store {
    /// Puts a training at the end of the queue.
    ///
    /// The message must have its `name`; the store sets state, times and sequence and appends the
    /// first event. A training of the same id that ended before its first epoch began is deleted in
    /// the same transaction, unless it has another owner.
    ///
    /// # Errors
    /// In this order: [`Error::BadName`], [`Error::RequestIdReused`], [`Error::AlreadyExists`],
    /// [`Error::QueueFull`], [`Error::TrainingsFull`], [`Error::NotFound`] for a dataset that was
    /// deleted.
    pub(crate) async fn insert_training(
        &self,
        training: pb::Training,
        request: Option<RequestId>,
        limits: impl Into<TrainingLimits>,
    ) -> Result<Inserted, Error> {
        let limits = limits.into();
        let inner = self.inner.clone();
        run_detached(Box::pin(async move {
            let mut write = WriteTx::start(inner).await?;
            let inserted = Box::pin(insert(&mut write, training, request, limits)).await?;
            write.commit().await?;
            Ok(inserted)
        }))
        .await
    }

    /// Returns the training that a request id was used for, if any.
    ///
    /// # Errors
    /// [`Error::RequestIdReused`].
    pub(crate) async fn requested_training(
        &self,
        request: &RequestId,
    ) -> Result<Option<pb::Training>, Error> {
        let mut read = self.read().await?;
        find_request(&mut read, request).await
    }

    /// Checks that a training of this name and owner could be queued now.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`], [`Error::QueueFull`], [`Error::TrainingsFull`].
    pub(crate) async fn check_insertable(
        &self,
        id: &str,
        owner: &str,
        limits: impl Into<TrainingLimits>,
    ) -> Result<(), Error> {
        let mut read = self.read().await?;
        let checked = insertable(&mut read, id, owner, limits.into()).await;
        checked.map(drop)
    }
}

async fn insert(
    write: &mut WriteTx,
    mut training: pb::Training,
    request: Option<RequestId>,
    limits: TrainingLimits,
) -> Result<Inserted, Error> {
    let id = match training.name.strip_prefix("trainings/") {
        Some(id) if !id.is_empty() && !id.contains('/') => id.to_owned(),
        _ => {
            return Err(Error::BadName {
                name: training.name,
            });
        }
    };
    if let Some(request) = &request
        && let Some(existing) = find_request(write.connection(), request).await?
    {
        return Ok(Inserted::Existing(existing));
    }
    let Insertable { queued, replaced } =
        insertable(write.connection(), &id, &training.owner, limits).await?;
    if let Some(replaced) = replaced {
        delete_row(write.connection(), replaced).await?;
    }
    datasets::check_used(write.connection(), &training).await?;

    let now = Timestamp::from(SystemTime::now());
    training.set_state(TrainingState::Queued);
    training.create_time = Some(now);
    training.update_time = Some(now);
    training.last_sequence = 1;
    training.queue_position = 0;
    training.checkpoint_bytes = 0;
    training.model_version.clear();
    let number = sqlx::query(
        "INSERT INTO trainings (id, state, last_sequence, message) VALUES (?, ?, ?, ?)",
    )
    .bind(&id)
    .bind(training.state)
    .bind(training.last_sequence.cast_signed())
    .bind(training.encode_to_vec())
    .execute(write.connection())
    .await?
    .last_insert_rowid();
    insert_labels(write.connection(), number, &training.labels).await?;
    let mut log = Log {
        number,
        id: &id,
        sequence: 0,
        attempt: training.attempt,
        now,
    };
    log.append(write, state_changed(&training)).await?;
    if let Some(request) = request {
        sqlx::query("INSERT INTO request_ids (owner, id, fingerprint, training, create_time) VALUES (?, ?, ?, ?, unixepoch())")
            .bind(request.owner)
            .bind(request.id)
            .bind(request.fingerprint)
            .bind(number)
            .execute(write.connection())
            .await?;
    }
    // It is the newest, so all queued trainings are ahead of it.
    training.queue_position = u32::try_from(queued + 1).unwrap_or(u32::MAX);
    Ok(match replaced {
        Some(_) => Inserted::Replaced(training),
        None => Inserted::New(training),
    })
}

/// State of the queue before an insertion.
struct Insertable {
    /// Queued trainings.
    queued: i64,
    /// Row of an ended training of the same id that trained nothing.
    replaced: Option<i64>,
}

/// Checks that the id is free and the queue has room.
async fn insertable(
    connection: &mut SqliteConnection,
    id: &str,
    owner: &str,
    limits: TrainingLimits,
) -> Result<Insertable, Error> {
    let mut replaced = None;
    if let Some((number, training)) = find(connection, id).await? {
        let is_own = training.owner.is_empty() || owner.is_empty() || training.owner == owner;
        if !is_own || !has_trained_nothing(connection, number, &training).await? {
            return Err(Error::AlreadyExists {
                name: format!("trainings/{id}"),
            });
        }
        replaced = Some(number);
    }
    let queued: i64 = sqlx::query_scalar("SELECT count(*) FROM trainings WHERE state = ?")
        .bind(TrainingState::Queued as i32)
        .fetch_one(&mut *connection)
        .await?;
    if usize::try_from(queued).is_ok_and(|queued| queued >= limits.queued) {
        return Err(Error::QueueFull {
            limit: limits.queued,
        });
    }
    let stored: i64 = sqlx::query_scalar("SELECT count(*) FROM trainings")
        .fetch_one(connection)
        .await?;
    let is_full = usize::try_from(stored).is_ok_and(|stored| stored >= limits.stored);
    if is_full && replaced.is_none() {
        return Err(Error::TrainingsFull {
            limit: limits.stored,
        });
    }
    Ok(Insertable { queued, replaced })
}

/// Returns true if a training failed or was cancelled before its first epoch began.
async fn has_trained_nothing(
    connection: &mut SqliteConnection,
    number: i64,
    training: &pb::Training,
) -> Result<bool, Error> {
    let has_ended = matches!(
        training.state(),
        TrainingState::Failed | TrainingState::Cancelled
    );
    if !has_ended || training.last.is_some() {
        return Ok(false);
    }
    // A restart removes the metrics of the repeated epochs, but not the events.
    let has_trained = |kind: &Kind| {
        let is_running =
            matches!(kind, Kind::StateChanged(change) if change.state() == TrainingState::Running);
        is_running || matches!(kind, Kind::EpochCompleted(_))
    };
    let kinds = kinds(connection, number).await?;
    Ok(!kinds.iter().any(has_trained))
}

/// Returns the training that a request id started, if its fingerprint is equal.
async fn find_request(
    connection: &mut SqliteConnection,
    request: &RequestId,
) -> Result<Option<pb::Training>, Error> {
    let row: Option<(String, String)> = sqlx::query_as(
        "SELECT fingerprint, trainings.id FROM request_ids JOIN trainings ON number = training WHERE owner = ? AND request_ids.id = ?",
    )
    .bind(&request.owner)
    .bind(&request.id)
    .fetch_optional(&mut *connection)
    .await?;
    let Some((fingerprint, id)) = row else {
        return Ok(None);
    };
    if fingerprint != request.fingerprint {
        return Err(Error::RequestIdReused {
            request_id: request.id.clone(),
            training: format!("trainings/{id}"),
        });
    }
    Ok(find(connection, &id).await?.map(|(_, training)| training))
}
