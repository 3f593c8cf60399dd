//! Trainings: reading and deleting them.

use std::collections::BTreeMap;

use prost::Message;
use sqlx::{QueryBuilder, Sqlite, SqliteConnection};

use crate::proto::v1::{self as pb, TrainingState};

use super::{
    Error, Page, Store, checkpoints,
    events::Kind,
    transaction::{WriteTx, run_detached},
};

/// Selection of a list of trainings; the default selects all.
#[derive(Clone, Debug, Default)]
pub(crate) struct TrainingFilter {
    /// States; empty for all.
    pub states: Vec<TrainingState>,
    /// Labels that a training must have.
    pub labels: BTreeMap<String, String>,
}

impl Store {
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

    /// Lists up to `limit` of the selected trainings, newest first, before a position. Trainings
    /// inserted between two pages do not shift the others.
    pub(crate) async fn list_trainings(
        &self,
        filter: &TrainingFilter,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Page<pb::Training>, Error> {
        let any_state = filter.states.is_empty();
        let mask = filter
            .states
            .iter()
            .fold(0_i64, |mask, &state| mask | 1 << state as i64);
        let mut query = QueryBuilder::<Sqlite>::new(SELECT);
        query.push(" WHERE number < ");
        query.push_bind(before.unwrap_or(i64::MAX));
        query.push(" AND (").push_bind(any_state);
        query.push(" OR (").push_bind(mask).push(" >> state) & 1)");
        for (key, value) in &filter.labels {
            query.push(" AND EXISTS (SELECT 1 FROM training_labels WHERE training = number");
            query.push(" AND key = ").push_bind(key);
            query.push(" AND value = ").push_bind(value).push(")");
        }
        query.push(" ORDER BY number DESC LIMIT ");
        query.push_bind(i64::from(limit) + 1);
        let mut read = self.read().await?;
        let rows = query.build_query_as().fetch(&mut *read);
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
            delete_row(write.connection(), number).await?;
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

/// Returns the trainings that have not ended, oldest first.
pub(super) async fn live(connection: &mut SqliteConnection) -> Result<Vec<pb::Training>, Error> {
    let mut query = QueryBuilder::<Sqlite>::new(SELECT);
    query.push(" WHERE state < ").push_bind(FIRST_FINAL as i32);
    query.push(" ORDER BY number");
    let rows: Vec<Row> = query.build_query_as().fetch_all(connection).await?;
    rows.into_iter().map(|row| Ok(decode(row)?.1)).collect()
}

/// Deletes a training with all rows that belong to it.
pub(super) async fn delete_row(
    connection: &mut SqliteConnection,
    number: i64,
) -> Result<(), Error> {
    sqlx::query("DELETE FROM trainings WHERE number = ?")
        .bind(number)
        .execute(connection)
        .await?;
    Ok(())
}

/// Returns the event for the current state.
pub(super) fn state_changed(training: &pb::Training) -> Kind {
    Kind::StateChanged(pb::StateChanged {
        state: training.state,
        stop_reason: training.stop_reason,
        failure: training.failure.clone(),
    })
}

/// Number, id, message, queue position and bytes of checkpoints.
type Row = (i64, String, Vec<u8>, i64, i64);

/// The start of each query for [`Row`]s.
const SELECT: &str =
    "SELECT number, id, message, queue_position, checkpoint_bytes FROM placed_trainings";

/// Returns a training and the number of its row.
pub(super) async fn find(
    connection: &mut SqliteConnection,
    id: &str,
) -> Result<Option<(i64, pb::Training)>, Error> {
    let mut query = QueryBuilder::<Sqlite>::new(SELECT);
    query.push(" WHERE id = ").push_bind(id);
    let row: Option<Row> = query.build_query_as().fetch_optional(connection).await?;
    row.map(decode).transpose()
}

fn decode((number, id, message, position, bytes): Row) -> Result<(i64, pb::Training), Error> {
    let mut training =
        pb::Training::decode(message.as_slice()).map_err(|source| Error::Damaged {
            what: "training",
            name: format!("trainings/{id}"),
            source,
        })?;
    training.queue_position = u32::try_from(position).unwrap_or(u32::MAX);
    training.checkpoint_bytes = bytes.cast_unsigned();
    Ok((number, training))
}
