//! Datasets with a name: register, make, read, list and delete.

use tonic::Status;

use crate::{
    dataset::{AgePattern, column_names},
    datasets::{DatasetRegistry, Properties},
    names,
    proto::{v1, validation::Violation},
    store::Store,
};

use super::super::{next_page_token, page_size, page_token, status};

/// Most characters of a text for people.
const MAX_DISPLAY_NAME: usize = 256;

/// The calls over their handles.
#[derive(Clone)]
pub struct DatasetCrud {
    /// The datasets.
    pub datasets: DatasetRegistry,
    /// Their records.
    pub store: Store,
    /// Whether datasets are made of uploads.
    pub uploads: bool,
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
        let about = Properties {
            display_name,
            age_pattern,
            columns,
        };
        let required = ("path", path.as_str(), "name a directory or a manifest");
        check(&dataset_id, &about, required)?;
        let registered = self.datasets.register(&dataset_id, about, &path);
        let dataset = registered.await.map_err(status::from_datasets)?;
        Ok(v1::RegisterDatasetResponse {
            dataset: Some(dataset),
        })
    }

    pub(super) async fn create(
        &self,
        request: v1::CreateDatasetRequest,
    ) -> Result<v1::CreateDatasetResponse, Status> {
        if !self.uploads {
            return Err(status::no_uploads());
        }
        let v1::CreateDatasetRequest {
            dataset_id,
            upload,
            display_name,
            age_pattern,
            columns,
        } = request;
        let about = Properties {
            display_name,
            age_pattern,
            columns,
        };
        let required = (
            "upload",
            upload.as_str(),
            "give what POST /datasets/uploads of the HTTP port returned",
        );
        check(&dataset_id, &about, required)?;
        let created = self.datasets.create(&dataset_id, about, &upload);
        let dataset = created.await.map_err(status::from_datasets)?;
        Ok(v1::CreateDatasetResponse {
            dataset: Some(dataset),
        })
    }

    pub(super) async fn get(
        &self,
        request: v1::GetDatasetRequest,
    ) -> Result<v1::GetDatasetResponse, Status> {
        let found = self.datasets.get(dataset_id(&request.name)?).await;
        Ok(v1::GetDatasetResponse {
            dataset: Some(found.map_err(status::from_datasets)?),
        })
    }

    pub(super) async fn list(
        &self,
        request: v1::ListDatasetsRequest,
    ) -> Result<v1::ListDatasetsResponse, Status> {
        let limit = page_size(request.page_size, 50)?;
        let before = page_token(&request.page_token)?;
        let page = self.store.list_datasets(before, limit).await;
        let page = page.map_err(status::from_store)?;
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
        let deleted = self.datasets.delete(dataset_id(&request.name)?).await;
        deleted.map_err(status::from_datasets)?;
        Ok(v1::DeleteDatasetResponse {})
    }
}

/// All that is wrong with the fields of a new dataset; `required` is one that must not be empty, with a way out.
fn check(
    id: &str,
    about: &Properties,
    (field, value, way_out): (&str, &str, &str),
) -> Result<(), Status> {
    let mut violations = Vec::new();
    let mut refuse = |field: &str, description: String| {
        violations.push(Violation {
            field: field.to_owned(),
            description,
        });
    };
    if !names::is_id(id) {
        refuse("dataset_id", names::id_violation(id));
    }
    if value.is_empty() {
        refuse(field, format!("it is empty; {way_out}"));
    }
    if let Err(description) = AgePattern::parse(&about.age_pattern) {
        refuse("age_pattern", description);
    }
    if let Err((role, description)) = column_names(about.columns.as_ref()).validate() {
        refuse(&format!("columns.{role}"), description);
    }
    if about.display_name.chars().count() > MAX_DISPLAY_NAME {
        let description = format!("it is longer than {MAX_DISPLAY_NAME} characters");
        refuse("display_name", description);
    }
    match violations.is_empty() {
        true => Ok(()),
        false => Err(status::violations(&violations)),
    }
}

fn dataset_id(name: &str) -> Result<&str, Status> {
    names::dataset_id(name).map_err(|error| status::bad_name("name", &error))
}
