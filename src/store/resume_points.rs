//! Positions at which live trainings can resume.

use prost::Message;

use crate::proto::worker_v1::ResumePoint;

use super::{Error, Store, transaction::WriteTx};

impl Store {
    /// Returns the resume point of a training; `None` before the first one and after the end.
    pub(crate) async fn resume_point(&self, id: &str) -> Result<Option<ResumePoint>, Error> {
        let mut read = self.read().await?;
        let message: Option<Vec<u8>> = sqlx::query_scalar(
            "SELECT message FROM resume_points WHERE training = (SELECT number FROM trainings WHERE id = ?)",
        )
        .bind(id)
        .fetch_optional(&mut *read)
        .await?;
        let decode = |message: Vec<u8>| {
            ResumePoint::decode(message.as_slice()).map_err(|source| Error::Damaged {
                what: "resume point",
                name: format!("trainings/{id}"),
                source,
            })
        };
        message.map(decode).transpose()
    }
}

/// Stores a resume point and replaces the earlier one.
pub(super) async fn upsert(
    write: &mut WriteTx,
    training: i64,
    point: &ResumePoint,
) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO resume_points (training, message) VALUES (?, ?) \
         ON CONFLICT (training) DO UPDATE SET message = excluded.message",
    )
    .bind(training)
    .bind(point.encode_to_vec())
    .execute(write.connection())
    .await?;
    Ok(())
}

pub(super) async fn delete(write: &mut WriteTx, training: i64) -> Result<(), Error> {
    sqlx::query("DELETE FROM resume_points WHERE training = ?")
        .bind(training)
        .execute(write.connection())
        .await?;
    Ok(())
}
