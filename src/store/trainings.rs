//! Trainings: inserting, reading and deleting them.

use std::time::SystemTime;

use prost::Message;
use prost_types::Timestamp;
use sqlx::SqliteConnection;

use crate::proto::v1::{self as pb, TrainingState};

use super::{
    Error, Page, Store, checkpoints, datasets,
    events::{Kind, Log},
    transaction::{WriteTx, run_detached},
};

/// Identifies a request, so that StartTraining is idempotent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RequestId {
    /// UUID of the client.
    pub id: String,
    /// Digest of the request without its id; a repeated id with another fingerprint is refused.
    pub fingerprint: String,
}

/// Result of inserting a training.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Inserted {
    New(pb::Training),
    /// The training that the request id was used for before.
    Existing(pb::Training),
}

impl Store {
    /// Puts a training at the end of the queue.
    ///
    /// The message must have its `name`; the store sets state, times and sequence and appends the
    /// first event. At most `max_queued` may be QUEUED, including this one.
    ///
    /// # Errors
    /// In this order: [`Error::BadName`], [`Error::RequestIdReused`], [`Error::AlreadyExists`],
    /// [`Error::QueueFull`], [`Error::NotFound`] for a dataset that was deleted.
    pub(crate) async fn insert_training(
        &self,
        training: pb::Training,
        request: Option<RequestId>,
        max_queued: usize,
    ) -> Result<Inserted, Error> {
        let inner = self.inner.clone();
        run_detached(Box::pin(async move {
            let mut write = WriteTx::start(inner).await?;
            let inserted = insert(&mut write, training, request, max_queued).await?;
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

    /// Checks that a training of this name could be queued now.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`], [`Error::QueueFull`].
    pub(crate) async fn check_insertable(&self, id: &str, max_queued: usize) -> Result<(), Error> {
        let mut read = self.read().await?;
        insertable(&mut read, id, max_queued).await.map(|_| ())
    }

    /// Returns a training.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub(crate) async fn training(&self, id: &str) -> Result<pb::Training, Error> {
        let mut read = self.read().await?;
        match find(&mut read, id).await? {
            Some((_, training)) => Ok(training),
            None => Err(Error::no_training(id)),
        }
    }

    /// Lists up to `limit` trainings in one of the states (empty for all), newest first, before a
    /// position. Trainings inserted between two pages do not shift the others.
    pub(crate) async fn list_trainings(
        &self,
        states: &[TrainingState],
        before: Option<i64>,
        limit: u32,
    ) -> Result<Page<pb::Training>, Error> {
        let any_state = states.is_empty();
        let mask = states
            .iter()
            .fold(0_i64, |mask, &state| mask | 1 << state as i64);
        let mut read = self.read().await?;
        let rows = sqlx::query_as(
            "SELECT number, id, message, queue_position FROM placed_trainings \
             WHERE number < ? AND (? OR (? >> state) & 1) ORDER BY number DESC LIMIT ?",
        )
        .bind(before.unwrap_or(i64::MAX))
        .bind(any_state)
        .bind(mask)
        .bind(i64::from(limit) + 1)
        .fetch(&mut *read);
        Page::read(rows, limit, decode).await
    }

    /// Returns the trainings that have not ended, oldest first, which is the order of the queue.
    pub(crate) async fn live_trainings(&self) -> Result<Vec<pb::Training>, Error> {
        let mut read = self.read().await?;
        live(&mut read).await
    }

    /// Returns the ids of the QUEUED trainings in queue order.
    pub(crate) async fn queue(&self) -> Result<Vec<String>, Error> {
        let mut read = self.read().await?;
        let ids = sqlx::query_scalar("SELECT id FROM trainings WHERE state = ? ORDER BY number")
            .bind(TrainingState::Queued as i32)
            .fetch_all(&mut *read)
            .await?;
        Ok(ids)
    }

    /// Counts the trainings by state, without empty states.
    pub(crate) async fn count_states(&self) -> Result<Vec<(TrainingState, u64)>, Error> {
        let mut read = self.read().await?;
        let rows: Vec<(i32, i64)> =
            sqlx::query_as("SELECT state, count(*) FROM trainings GROUP BY state ORDER BY state")
                .fetch_all(&mut *read)
                .await?;
        let known = |(state, count): (i32, i64)| {
            let state = TrainingState::try_from(state).ok()?;
            Some((state, count.cast_unsigned()))
        };
        Ok(rows.into_iter().filter_map(known).collect())
    }

    /// Deletes an ended training with its events, checkpoints and request id, but not its model
    /// versions. Returns the SHA-256 (hex) of the artifacts that are no longer referenced.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::StillLive`].
    pub(crate) async fn delete_training(&self, id: &str) -> Result<Vec<String>, Error> {
        let (inner, id) = (self.inner.clone(), id.to_owned());
        run_detached(Box::pin(async move {
            let mut write = WriteTx::start(inner).await?;
            let (number, training) = find(write.connection(), &id)
                .await?
                .ok_or_else(|| Error::no_training(&id))?;
            if !is_final(training.state()) {
                return Err(Error::StillLive {
                    state: training.state(),
                    name: training.name,
                });
            }
            let files: Vec<String> = sqlx::query_scalar(
                "SELECT DISTINCT sha256 FROM checkpoint_files WHERE training = ?",
            )
            .bind(number)
            .fetch_all(write.connection())
            .await?;
            sqlx::query("DELETE FROM trainings WHERE number = ?")
                .bind(number)
                .execute(write.connection())
                .await?;
            let free = checkpoints::unreferenced(write.connection(), files).await?;
            write.commit().await?;
            Ok(free)
        }))
        .await
    }
}

/// The lowest final state; the numbers of all live states are below it.
const FIRST_FINAL: TrainingState = TrainingState::Succeeded;

/// Returns true if a training in this state has ended.
pub(crate) fn is_final(state: TrainingState) -> bool {
    match state {
        TrainingState::Succeeded | TrainingState::Failed | TrainingState::Cancelled => true,
        TrainingState::Unspecified
        | TrainingState::Queued
        | TrainingState::Preparing
        | TrainingState::Running
        | TrainingState::Pausing
        | TrainingState::Paused
        | TrainingState::Stopping
        | TrainingState::Cancelling => false,
    }
}

async fn insert(
    write: &mut WriteTx,
    mut training: pb::Training,
    request: Option<RequestId>,
    max_queued: usize,
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
    let queued = insertable(write.connection(), &id, max_queued).await?;
    datasets::check_used(write.connection(), &training).await?;

    let now = Timestamp::from(SystemTime::now());
    training.set_state(TrainingState::Queued);
    training.create_time = Some(now);
    training.update_time = Some(now);
    training.last_sequence = 1;
    training.queue_position = 0;
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
    let mut log = Log {
        number,
        id: &id,
        sequence: 0,
        attempt: training.attempt,
        now,
    };
    log.append(write, state_changed(&training)).await?;
    if let Some(request) = request {
        sqlx::query("INSERT INTO request_ids (id, fingerprint, training) VALUES (?, ?, ?)")
            .bind(request.id)
            .bind(request.fingerprint)
            .bind(number)
            .execute(write.connection())
            .await?;
    }
    // It is the newest, so all queued trainings are ahead of it.
    training.queue_position = u32::try_from(queued + 1).unwrap_or(u32::MAX);
    Ok(Inserted::New(training))
}

/// Returns the trainings that have not ended, oldest first.
pub(super) async fn live(connection: &mut SqliteConnection) -> Result<Vec<pb::Training>, Error> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT number, id, message, queue_position FROM placed_trainings WHERE state < ? ORDER BY number",
    )
    .bind(FIRST_FINAL as i32)
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(|row| Ok(decode(row)?.1)).collect()
}

/// Checks that the id is free and the queue has room. Returns the number of queued trainings.
async fn insertable(
    connection: &mut SqliteConnection,
    id: &str,
    max_queued: usize,
) -> Result<i64, Error> {
    if find(connection, id).await?.is_some() {
        return Err(Error::AlreadyExists {
            name: format!("trainings/{id}"),
        });
    }
    let queued: i64 = sqlx::query_scalar("SELECT count(*) FROM trainings WHERE state = ?")
        .bind(TrainingState::Queued as i32)
        .fetch_one(connection)
        .await?;
    if usize::try_from(queued).is_ok_and(|queued| queued >= max_queued) {
        return Err(Error::QueueFull { limit: max_queued });
    }
    Ok(queued)
}

/// Returns the training that a request id started, if its fingerprint is equal.
async fn find_request(
    connection: &mut SqliteConnection,
    request: &RequestId,
) -> Result<Option<pb::Training>, Error> {
    let row: Option<(String, String)> = sqlx::query_as(
        "SELECT fingerprint, trainings.id FROM request_ids JOIN trainings ON number = training WHERE request_ids.id = ?",
    )
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

/// Returns the event for the current state.
pub(super) fn state_changed(training: &pb::Training) -> Kind {
    Kind::StateChanged(pb::StateChanged {
        state: training.state,
        stop_reason: training.stop_reason,
        failure: training.failure.clone(),
    })
}

/// Number, id, message and queue position.
type Row = (i64, String, Vec<u8>, i64);

/// Returns a training and the number of its row.
pub(super) async fn find(
    connection: &mut SqliteConnection,
    id: &str,
) -> Result<Option<(i64, pb::Training)>, Error> {
    let row: Option<Row> = sqlx::query_as(
        "SELECT number, id, message, queue_position FROM placed_trainings WHERE id = ?",
    )
    .bind(id)
    .fetch_optional(connection)
    .await?;
    row.map(decode).transpose()
}

fn decode((number, id, message, position): Row) -> Result<(i64, pb::Training), Error> {
    let mut training =
        pb::Training::decode(message.as_slice()).map_err(|source| Error::Damaged {
            what: "training",
            name: format!("trainings/{id}"),
            source,
        })?;
    training.queue_position = u32::try_from(position).unwrap_or(u32::MAX);
    Ok((number, training))
}
