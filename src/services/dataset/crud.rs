//! Named datasets: register, create from an upload, get, list and delete.

use tonic::Status;

use crate::{
    dataset::{AgePattern, column_names},
    datasets::{
        DatasetRegistry, Properties,
        uploads::{ListedUpload, Scope},
    },
    names,
    proto::{v1, validation::Check},
    services::{
        page::{PageRequest, next_page_token},
        status,
    },
    store::Store,
};

/// Maximum number of characters.
const MAX_DISPLAY_NAME: usize = 256;

#[derive(Clone)]
pub(crate) struct DatasetCrud {
    pub(crate) datasets: DatasetRegistry,
    pub(crate) store: Store,
    /// The server accepts uploads.
    pub(crate) uploads: bool,
}

impl DatasetCrud {
    pub(super) async fn register(
        &self,
        request: v1::RegisterDatasetRequest,
    ) -> Result<v1::RegisterDatasetResponse, Status> {
        let v1::RegisterDatasetRequest {
            dataset_id,
            path,
            display_name,
            age_pattern,
            columns,
        } = request;
        let properties = Properties {
            display_name,
            age_pattern,
            columns,
        };
        let mut check = Check::default();
        if path.is_empty() {
            check.refuse(
                "path",
                "must not be empty; set it to a directory or a manifest",
            );
        }
        check_fields(&dataset_id, &properties, check)?;
        let dataset = self
            .datasets
            .register(&dataset_id, properties, &path)
            .await?;
        Ok(v1::RegisterDatasetResponse {
            dataset: Some(dataset),
        })
    }

    pub(super) async fn create(
        &self,
        request: v1::CreateDatasetRequest,
        scope: &Scope,
    ) -> Result<v1::CreateDatasetResponse, Status> {
        if !self.uploads {
            return Err(status::uploads_disabled());
        }
        let v1::CreateDatasetRequest {
            dataset_id,
            upload,
            display_name,
            age_pattern,
            columns,
        } = request;
        let properties = Properties {
            display_name,
            age_pattern,
            columns,
        };
        let mut check = Check::default();
        if upload.is_empty() {
            check.refuse(
                "upload",
                "must not be empty; set it to the upload that POST /datasets/uploads of the HTTP port returned",
            );
        }
        check_fields(&dataset_id, &properties, check)?;
        let dataset = self
            .datasets
            .create(&dataset_id, properties, &upload, scope)
            .await?;
        Ok(v1::CreateDatasetResponse {
            dataset: Some(dataset),
        })
    }

    pub(super) async fn list_uploads(
        &self,
        scope: &Scope,
    ) -> Result<v1::ListUploadsResponse, Status> {
        let listed = self.datasets.list_uploads(scope).await?;
        let message = |listed: ListedUpload| v1::Upload {
            upload: listed.upload.id.to_string(),
            size_bytes: listed.upload.length,
            received_bytes: listed.upload.offset,
            update_time: Some(listed.updated.into()),
            expire_time: Some(listed.expires.into()),
        };
        Ok(v1::ListUploadsResponse {
            uploads: listed.into_iter().map(message).collect(),
        })
    }

    pub(super) async fn delete_upload(
        &self,
        request: v1::DeleteUploadRequest,
        scope: &Scope,
    ) -> Result<v1::DeleteUploadResponse, Status> {
        if request.upload.is_empty() {
            return Err(status::invalid("upload", "must not be empty"));
        }
        self.datasets.remove_upload(&request.upload, scope).await?;
        Ok(v1::DeleteUploadResponse {})
    }

    pub(super) async fn get(
        &self,
        request: v1::GetDatasetRequest,
    ) -> Result<v1::GetDatasetResponse, Status> {
        let dataset = self.datasets.get(dataset_id(&request.name)?).await?;
        Ok(v1::GetDatasetResponse {
            dataset: Some(dataset),
        })
    }

    pub(super) async fn list(
        &self,
        request: v1::ListDatasetsRequest,
    ) -> Result<v1::ListDatasetsResponse, Status> {
        let page = PageRequest::read(request.page_size, 50, &request.page_token)?;
        let page = self.store.list_datasets(page.cursor, page.limit).await?;
        let without_samples = |dataset| v1::Dataset {
            samples: Vec::new(),
            ..dataset
        };
        Ok(v1::ListDatasetsResponse {
            datasets: page.items.into_iter().map(without_samples).collect(),
            next_page_token: next_page_token(page.next),
        })
    }

    pub(super) async fn delete(
        &self,
        request: v1::DeleteDatasetRequest,
    ) -> Result<v1::DeleteDatasetResponse, Status> {
        self.datasets.delete(dataset_id(&request.name)?).await?;
        Ok(v1::DeleteDatasetResponse {})
    }
}

/// Reports all violations of a new dataset, including those already in `check`.
fn check_fields(id: &str, properties: &Properties, mut check: Check) -> Result<(), Status> {
    if !names::is_id(id) {
        check.refuse("dataset_id", names::id_violation(id));
    }
    if let Err(description) = AgePattern::parse(&properties.age_pattern) {
        check.refuse("age_pattern", description);
    }
    if let Err((role, description)) = column_names(properties.columns.as_ref()).validate() {
        check.refuse(&format!("columns.{role}"), description);
    }
    if properties.display_name.chars().count() > MAX_DISPLAY_NAME {
        let description = format!("must have at most {MAX_DISPLAY_NAME} characters");
        check.refuse("display_name", description);
    }
    check
        .finish(())
        .map_err(|violations| status::violations(&violations))
}

fn dataset_id(name: &str) -> Result<&str, Status> {
    names::dataset_id(name).map_err(|error| status::invalid("name", error))
}
