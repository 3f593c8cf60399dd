//! Where live trainings can go on.

use prost::Message;

use super::database::Write;
use super::{Error, Store};
use crate::proto::worker_v1::ResumePoint;

impl Store {
    /// Where a training can go on; `None` when it can only begin, or has ended.
    pub async fn resume_point(&self, id: &str) -> Result<Option<ResumePoint>, Error> {
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

/// Stores where a training can go on, in place of an earlier point.
pub(super) async fn upsert(
    write: &mut Write,
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

/// Forgets where a training could go on.
pub(super) async fn forget(write: &mut Write, training: i64) -> Result<(), Error> {
    sqlx::query("DELETE FROM resume_points WHERE training = ?")
        .bind(training)
        .execute(write.connection())
        .await?;
    Ok(())
}
