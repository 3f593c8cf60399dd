//! Disk space that checkpoints, model versions and datasets use.

use futures_util::TryStreamExt as _;
use prost::Message as _;

use crate::proto::v1::{self as pb, DatasetKind};

use super::{Error, Store};

impl Store {
    /// Returns the size of all artifacts in use in bytes; a file that is used several times counts
    /// once.
    pub(crate) async fn artifact_bytes(&self) -> Result<u64, Error> {
        let mut read = self.read().await?;
        let bytes: i64 = sqlx::query_scalar(
            "SELECT coalesce(sum(size_bytes), 0) FROM (\
             SELECT sha256, size_bytes FROM checkpoint_files UNION SELECT sha256, size_bytes FROM version_files)",
        )
        .fetch_one(&mut *read)
        .await?;
        Ok(bytes.cast_unsigned())
    }

    /// Returns the size of all uploaded datasets in bytes: of their images, or of their files
    /// before the scan has found them.
    pub(crate) async fn unpacked_bytes(&self) -> Result<u64, Error> {
        let mut read = self.read().await?;
        let mut rows = sqlx::query_as::<_, (String, Vec<u8>)>("SELECT id, message FROM datasets")
            .fetch(&mut *read);
        let mut bytes = 0_u64;
        while let Some((id, message)) = rows.try_next().await? {
            let dataset = pb::Dataset::decode(&*message).map_err(|source| Error::Damaged {
                what: "dataset",
                name: format!("datasets/{id}"),
                source,
            })?;
            if dataset.kind() == DatasetKind::Uploaded {
                bytes = bytes.saturating_add(dataset.bytes);
            }
        }
        Ok(bytes)
    }
}
