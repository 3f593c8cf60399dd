//! Named datasets.

use std::path::Path;

use tonic::Status;
use visage::proto::v1::{self, DatasetState};

use crate::support::{Server, wait_until};

impl Server {
    pub(crate) async fn register(&self, id: &str, path: &Path) -> Result<v1::Dataset, Status> {
        let request = v1::RegisterDatasetRequest {
            dataset_id: id.to_owned(),
            path: path.to_str().unwrap().to_owned(),
            display_name: format!("The dataset {id}"),
            ..Default::default()
        };
        let response = self.datasets().register_dataset(request).await?;
        Ok(response.into_inner().dataset.unwrap())
    }

    pub(crate) async fn create(&self, id: &str, upload: &str) -> Result<v1::Dataset, Status> {
        let request = v1::CreateDatasetRequest {
            dataset_id: id.to_owned(),
            upload: upload.to_owned(),
            ..Default::default()
        };
        let response = self.datasets().create_dataset(request).await?;
        Ok(response.into_inner().dataset.unwrap())
    }

    pub(crate) async fn dataset(&self, id: &str) -> Result<v1::Dataset, Status> {
        let name = format!("datasets/{id}");
        let response = self
            .datasets()
            .get_dataset(v1::GetDatasetRequest { name })
            .await?;
        Ok(response.into_inner().dataset.unwrap())
    }

    /// Waits until the dataset is READY or FAILED.
    pub(crate) async fn dataset_done(&self, id: &str) -> v1::Dataset {
        wait_until("the dataset is done with", || async {
            let dataset = self.dataset(id).await.unwrap();
            matches!(dataset.state(), DatasetState::Ready | DatasetState::Failed)
        })
        .await;
        self.dataset(id).await.unwrap()
    }

    pub(crate) async fn delete_dataset(&self, id: &str) -> Result<(), Status> {
        let name = format!("datasets/{id}");
        let request = v1::DeleteDatasetRequest { name };
        self.datasets().delete_dataset(request).await.map(|_| ())
    }
}

/// The spec with a named dataset instead of a path.
pub(crate) fn by_name(spec: v1::TrainingSpec, name: &str) -> v1::TrainingSpec {
    v1::TrainingSpec {
        dataset: Some(v1::DatasetSpec {
            name: name.to_owned(),
            ..Default::default()
        }),
        ..spec
    }
}
