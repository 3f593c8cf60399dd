//! Fills columns that a migration added from the messages of older rows, which SQL cannot read.

use prost::Message;
use sqlx::{SqliteConnection, sqlite::SqlitePool};

use crate::proto::v1 as pb;

use super::{Error, labels::insert_labels};

/// Fills the columns of `0004_labels_and_sizes.sql`, once: the mark that it has yet to be done is
/// removed in the same transaction, so a crash repeats it.
///
/// # Errors
/// [`Error::Damaged`], or a failure of the database.
pub(super) async fn run(writer: &SqlitePool) -> Result<(), Error> {
    let mut transaction = writer.begin_with("BEGIN IMMEDIATE").await?;
    let marked = sqlx::query("DELETE FROM backfills WHERE name = 'labels_and_sizes'")
        .execute(&mut *transaction)
        .await?
        .rows_affected();
    if marked > 0 {
        labels(&mut transaction).await?;
        checkpoint_sizes(&mut transaction).await?;
        version_sizes(&mut transaction).await?;
    }
    Ok(transaction.commit().await?)
}

async fn labels(connection: &mut SqliteConnection) -> Result<(), Error> {
    let rows: Vec<(i64, Vec<u8>)> = sqlx::query_as("SELECT number, message FROM trainings")
        .fetch_all(&mut *connection)
        .await?;
    for (number, message) in rows {
        let training: pb::Training = decode("training", &number.to_string(), &message)?;
        insert_labels(connection, number, &training.labels).await?;
    }
    Ok(())
}

async fn checkpoint_sizes(connection: &mut SqliteConnection) -> Result<(), Error> {
    let messages: Vec<Vec<u8>> = sqlx::query_scalar("SELECT message FROM checkpoints")
        .fetch_all(&mut *connection)
        .await?;
    for message in messages {
        let checkpoint: pb::Checkpoint = decode("checkpoint", "", &message)?;
        let query = "UPDATE checkpoint_files SET size_bytes = ? WHERE sha256 = ?";
        set_sizes(connection, query, &checkpoint.files).await?;
    }
    Ok(())
}

async fn version_sizes(connection: &mut SqliteConnection) -> Result<(), Error> {
    let messages: Vec<Vec<u8>> = sqlx::query_scalar("SELECT message FROM versions")
        .fetch_all(&mut *connection)
        .await?;
    for message in messages {
        let version: pb::ModelVersion = decode("model version", "", &message)?;
        let query = "UPDATE version_files SET size_bytes = ? WHERE sha256 = ?";
        set_sizes(connection, query, &version.files).await?;
    }
    Ok(())
}

async fn set_sizes(
    connection: &mut SqliteConnection,
    query: &'static str,
    files: &[pb::CheckpointFile],
) -> Result<(), Error> {
    for file in files {
        sqlx::query(query)
            .bind(file.size_bytes.cast_signed())
            .bind(&file.sha256)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

fn decode<M: Message + Default>(
    what: &'static str,
    name: &str,
    message: &[u8],
) -> Result<M, Error> {
    M::decode(message).map_err(|source| Error::Damaged {
        what,
        name: name.to_owned(),
        source,
    })
}
