//! Deletion of what is older than the settings allow, in small transactions, so that other writes
//! wait for one of them at most.

use prost::Message as _;

use crate::proto::v1 as pb;

use super::{
    Error, Store, trainings,
    transaction::{WriteTx, run_detached},
};

/// Rows of a transaction.
const BATCH: i64 = 500;
/// Entries of the history of a model's aliases that are kept at any age: the rules for `previous`
/// read the latest ones.
const KEPT_ALIAS_EVENTS: i64 = 100;

impl Store {
    /// Deletes request ids from before a time in seconds since the Unix epoch, at most one batch.
    /// Returns whether there may be more.
    pub(crate) async fn expire_request_ids(&self, before: i64) -> Result<bool, Error> {
        self.delete_batch(
            "DELETE FROM request_ids WHERE rowid IN \
             (SELECT rowid FROM request_ids WHERE create_time < ? LIMIT ?)",
            before,
        )
        .await
    }

    /// Deletes the events of an ended training but the last one, at most one batch. Returns whether
    /// there may be more. A training that has not ended is left as it is.
    pub(crate) async fn expire_events(&self, id: &str) -> Result<bool, Error> {
        let (inner, id) = (self.inner.clone(), id.to_owned());
        run_detached(Box::pin(async move {
            let mut write = WriteTx::start(inner).await?;
            let Some((number, training)) = trainings::find(write.connection(), &id).await? else {
                return Ok(false);
            };
            if !trainings::is_final(training.state()) {
                return Ok(false);
            }
            let deleted = sqlx::query(
                "DELETE FROM events WHERE cursor IN (SELECT cursor FROM events \
                 WHERE training = ?1 AND sequence < \
                 (SELECT last_sequence FROM trainings WHERE number = ?1) LIMIT ?2)",
            )
            .bind(number)
            .bind(BATCH)
            .execute(write.connection())
            .await?
            .rows_affected();
            write.commit().await?;
            Ok(deleted >= BATCH.cast_unsigned())
        }))
        .await
    }

    /// Deletes entries of the history of aliases from before a time in seconds since the Unix
    /// epoch, except the last ones of each model; at most one batch. Returns whether there may be
    /// more.
    pub(crate) async fn expire_alias_events(&self, before: i64) -> Result<bool, Error> {
        let mut read = self.read().await?;
        let rows: Vec<(i64, Vec<u8>)> = sqlx::query_as(
            "SELECT number, message FROM alias_events AS event WHERE \
             (SELECT count(*) FROM alias_events AS later \
             WHERE later.model = event.model AND later.number > event.number LIMIT ?1) >= ?1 \
             ORDER BY number LIMIT ?2",
        )
        .bind(KEPT_ALIAS_EVENTS)
        .bind(BATCH)
        .fetch_all(&mut *read)
        .await?;
        drop(read);
        let is_full = rows.len() >= usize::try_from(BATCH).unwrap_or(usize::MAX);
        // The numbers and the times have the same order.
        let mut last = None;
        for (number, message) in &rows {
            let event =
                pb::AliasEvent::decode(message.as_slice()).map_err(|source| Error::Damaged {
                    what: "alias event",
                    name: number.to_string(),
                    source,
                })?;
            if event.event_time.is_none_or(|time| time.seconds >= before) {
                break;
            }
            last = Some(*number);
        }
        let Some(last) = last else { return Ok(false) };
        let old: Vec<i64> = rows
            .iter()
            .map(|(number, _)| *number)
            .filter(|number| *number <= last)
            .collect();
        let inner = self.inner.clone();
        let is_whole = old.len() == rows.len();
        run_detached(Box::pin(async move {
            let mut write = WriteTx::start(inner).await?;
            for number in old {
                sqlx::query("DELETE FROM alias_events WHERE number = ?")
                    .bind(number)
                    .execute(write.connection())
                    .await?;
            }
            write.commit().await
        }))
        .await?;
        Ok(is_full && is_whole)
    }

    async fn delete_batch(&self, query: &'static str, before: i64) -> Result<bool, Error> {
        let inner = self.inner.clone();
        run_detached(Box::pin(async move {
            let mut write = WriteTx::start(inner).await?;
            let deleted = sqlx::query(query)
                .bind(before)
                .bind(BATCH)
                .execute(write.connection())
                .await?
                .rows_affected();
            write.commit().await?;
            Ok(deleted >= BATCH.cast_unsigned())
        }))
        .await
    }
}
