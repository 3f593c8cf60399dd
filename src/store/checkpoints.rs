//! Checkpoints of trainings, and referenced artifacts.

use std::collections::{BTreeSet, HashSet};

use prost::Message;
use sqlx::SqliteConnection;

use crate::{names::CheckpointRef, proto::v1 as pb};

use super::{Error, Page, Store, transaction::WriteTx};

impl Store {
    /// Lists up to `limit` checkpoints of a training, newest first, of epochs below `before`.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub(crate) async fn checkpoints(
        &self,
        id: &str,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Page<pb::Checkpoint>, Error> {
        let mut read = self.read().await?;
        let number: i64 = sqlx::query_scalar("SELECT number FROM trainings WHERE id = ?")
            .bind(id)
            .fetch_optional(&mut *read)
            .await?
            .ok_or_else(|| Error::no_training(id))?;
        let rows = sqlx::query_as(
            "SELECT epoch, best, message FROM checkpoints WHERE training = ? AND epoch < ? ORDER BY epoch DESC LIMIT ?",
        )
        .bind(number)
        .bind(before.unwrap_or(i64::MAX))
        .bind(i64::from(limit) + 1)
        .fetch(&mut *read);
        Page::read(rows, limit, |row: Row| Ok((row.0, decode(id, row)?))).await
    }

    /// Returns a checkpoint of a training.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub(crate) async fn checkpoint(
        &self,
        id: &str,
        which: CheckpointRef,
    ) -> Result<pb::Checkpoint, Error> {
        let mut read = self.read().await?;
        let (query, name) = match which {
            CheckpointRef::Epoch(epoch) => (
                sqlx::query_as(
                    "SELECT epoch, best, message FROM checkpoints \
                     WHERE training = (SELECT number FROM trainings WHERE id = ?) AND epoch = ?",
                )
                .bind(id)
                .bind(epoch),
                epoch.to_string(),
            ),
            CheckpointRef::Best => (
                sqlx::query_as(
                    "SELECT epoch, best, message FROM checkpoints \
                     WHERE training = (SELECT number FROM trainings WHERE id = ?) AND best = 1",
                )
                .bind(id),
                "best".to_owned(),
            ),
        };
        let row: Option<Row> = query.fetch_optional(&mut *read).await?;
        row.map_or_else(
            || {
                Err(Error::NotFound {
                    what: "checkpoint",
                    name: format!("trainings/{id}/checkpoints/{name}"),
                })
            },
            |row| decode(id, row),
        )
    }

    /// Returns the best checkpoint so far, if there is one.
    pub(crate) async fn best_checkpoint(&self, id: &str) -> Result<Option<pb::Checkpoint>, Error> {
        match self.checkpoint(id, CheckpointRef::Best).await {
            Ok(best) => Ok(Some(best)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns true if a checkpoint or a model version uses the artifact with this SHA-256 (hex).
    pub(crate) async fn is_referenced(&self, sha256: &str) -> Result<bool, Error> {
        let mut read = self.read().await?;
        is_referenced(&mut read, sha256).await
    }

    /// Returns the SHA-256 (hex) of every artifact that a checkpoint or a model version uses.
    pub(crate) async fn referenced_digests(&self) -> Result<HashSet<String>, Error> {
        let mut read = self.read().await?;
        let digests: Vec<String> = sqlx::query_scalar(
            "SELECT sha256 FROM checkpoint_files UNION SELECT sha256 FROM version_files",
        )
        .fetch_all(&mut *read)
        .await?;
        Ok(digests.into_iter().collect())
    }
}

/// Stores a checkpoint and replaces an earlier one of the same epoch, whose file digests it
/// returns.
pub(super) async fn upsert(
    write: &mut WriteTx,
    training: i64,
    checkpoint: &pb::Checkpoint,
) -> Result<BTreeSet<String>, Error> {
    let replaced = files_of(write.connection(), training, checkpoint.epoch).await?;
    if checkpoint.best {
        sqlx::query("UPDATE checkpoints SET best = 0 WHERE training = ? AND best = 1")
            .bind(training)
            .execute(write.connection())
            .await?;
    }
    sqlx::query(
        "INSERT INTO checkpoints (training, epoch, best, message) VALUES (?, ?, ?, ?) \
         ON CONFLICT (training, epoch) DO UPDATE SET best = excluded.best, message = excluded.message",
    )
    .bind(training)
    .bind(checkpoint.epoch)
    .bind(checkpoint.best)
    .bind(checkpoint.encode_to_vec())
    .execute(write.connection())
    .await?;
    sqlx::query("DELETE FROM checkpoint_files WHERE training = ? AND epoch = ?")
        .bind(training)
        .bind(checkpoint.epoch)
        .execute(write.connection())
        .await?;
    for file in &checkpoint.files {
        sqlx::query(
            "INSERT INTO checkpoint_files (training, epoch, sha256, size_bytes) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
        )
        .bind(training)
        .bind(checkpoint.epoch)
        .bind(&file.sha256)
        .bind(file.size_bytes.cast_signed())
        .execute(write.connection())
        .await?;
    }
    Ok(replaced)
}

/// Deletes the checkpoint of an epoch, if it exists, and returns the digests of its files.
pub(super) async fn delete(
    write: &mut WriteTx,
    training: i64,
    epoch: u32,
) -> Result<BTreeSet<String>, Error> {
    let files = files_of(write.connection(), training, epoch).await?;
    sqlx::query("DELETE FROM checkpoints WHERE training = ? AND epoch = ?")
        .bind(training)
        .bind(epoch)
        .execute(write.connection())
        .await?;
    Ok(files)
}

/// Deletes the checkpoints after the first `epochs` epochs, which the training repeats, and marks
/// the one of `best_epoch` as the best. Returns the digests of the deleted files.
pub(super) async fn rewind(
    write: &mut WriteTx,
    training: i64,
    epochs: u32,
    best_epoch: u32,
) -> Result<BTreeSet<String>, Error> {
    let later: Vec<u32> =
        sqlx::query_scalar("SELECT epoch FROM checkpoints WHERE training = ? AND epoch > ?")
            .bind(training)
            .bind(epochs)
            .fetch_all(write.connection())
            .await?;
    let mut released = BTreeSet::new();
    for epoch in later {
        released.append(&mut delete(write, training, epoch).await?);
    }
    // Two steps, because a unique index allows one best checkpoint at any time.
    for query in [
        "UPDATE checkpoints SET best = 0 WHERE training = ? AND epoch <> ?",
        "UPDATE checkpoints SET best = 1 WHERE training = ? AND epoch = ?",
    ] {
        sqlx::query(query)
            .bind(training)
            .bind(best_epoch)
            .execute(write.connection())
            .await?;
    }
    Ok(released)
}

/// Returns the digests that are no longer referenced.
pub(super) async fn unreferenced(
    connection: &mut SqliteConnection,
    candidates: impl IntoIterator<Item = String>,
) -> Result<Vec<String>, Error> {
    let mut free = Vec::new();
    for sha256 in candidates {
        if !is_referenced(connection, &sha256).await? {
            free.push(sha256);
        }
    }
    Ok(free)
}

async fn is_referenced(connection: &mut SqliteConnection, sha256: &str) -> Result<bool, Error> {
    let referenced = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM checkpoint_files WHERE sha256 = ?1) \
         OR EXISTS (SELECT 1 FROM version_files WHERE sha256 = ?1)",
    )
    .bind(sha256)
    .fetch_one(connection)
    .await?;
    Ok(referenced)
}

async fn files_of(
    connection: &mut SqliteConnection,
    training: i64,
    epoch: u32,
) -> Result<BTreeSet<String>, Error> {
    let digests: Vec<String> =
        sqlx::query_scalar("SELECT sha256 FROM checkpoint_files WHERE training = ? AND epoch = ?")
            .bind(training)
            .bind(epoch)
            .fetch_all(connection)
            .await?;
    Ok(digests.into_iter().collect())
}

/// Epoch, best and message.
type Row = (i64, bool, Vec<u8>);

fn decode(id: &str, (epoch, best, message): Row) -> Result<pb::Checkpoint, Error> {
    let mut checkpoint =
        pb::Checkpoint::decode(message.as_slice()).map_err(|source| Error::Damaged {
            what: "checkpoint",
            name: format!("trainings/{id}/checkpoints/{epoch}"),
            source,
        })?;
    checkpoint.best = best;
    Ok(checkpoint)
}
