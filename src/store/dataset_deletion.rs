//! Deletion of named datasets, unless a training reads them.

use std::path::Path;

use crate::proto::v1::{self as pb, DatasetKind};

use super::{
    Error, NumberedDataset, Store,
    datasets::find,
    trainings::live,
    transaction::{WriteTx, run_detached},
};

impl Store {
    /// Deletes a dataset and returns it; the caller deletes its files.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::DatasetInUse`].
    pub(crate) async fn delete_dataset(&self, id: &str) -> Result<NumberedDataset, Error> {
        let (inner, id) = (self.inner.clone(), id.to_owned());
        run_detached(Box::pin(async move {
            let mut write = WriteTx::start(inner).await?;
            let found = find(write.connection(), &id)
                .await?
                .ok_or_else(|| Error::no_dataset(&id))?;
            let live = live(write.connection()).await?;
            if let Some(training) = live
                .into_iter()
                .find(|training| reads(training, &found.dataset))
            {
                return Err(Error::DatasetInUse {
                    name: found.dataset.name,
                    training: training.name,
                });
            }
            sqlx::query("DELETE FROM datasets WHERE number = ?")
                .bind(found.number)
                .execute(write.connection())
                .await?;
            write.commit().await?;
            Ok(found)
        }))
        .await
    }
}

/// Returns true if a training reads the dataset: by its name, or by a path into files that would be
/// deleted with it.
fn reads(training: &pb::Training, dataset: &pb::Dataset) -> bool {
    let read = training.resolved_spec.as_ref();
    let Some(read) = read.and_then(|spec| spec.dataset.as_ref()) else {
        return false;
    };
    let is_inside = || Path::new(&read.path).starts_with(&dataset.path);
    read.name == dataset.name || (dataset.kind() == DatasetKind::Uploaded && is_inside())
}
