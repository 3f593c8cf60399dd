//! Labels of trainings, for the filter of lists.

use std::collections::BTreeMap;

use sqlx::SqliteConnection;

use super::Error;

/// Stores the labels of a training for filters.
pub(super) async fn insert_labels(
    connection: &mut SqliteConnection,
    training: i64,
    labels: &BTreeMap<String, String>,
) -> Result<(), Error> {
    for (key, value) in labels {
        sqlx::query("INSERT INTO training_labels (training, key, value) VALUES (?, ?, ?)")
            .bind(training)
            .bind(key)
            .bind(value)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}
