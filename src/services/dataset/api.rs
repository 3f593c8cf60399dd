use tonic::{Request, Response, Status};

use super::{
    check::{Checks, Responses},
    crud::DatasetCrud,
};
use crate::{
    proto::v1::{self, dataset_service_server::DatasetService},
    services::authorize,
};

#[derive(Clone)]
pub(crate) struct DatasetApi {
    pub(crate) checks: Checks,
    pub(crate) crud: DatasetCrud,
}

#[tonic::async_trait]
impl DatasetService for DatasetApi {
    type CheckDatasetStream = Responses;

    async fn check_dataset(
        &self,
        request: Request<v1::CheckDatasetRequest>,
    ) -> Result<Response<Self::CheckDatasetStream>, Status> {
        let dataset = request.get_ref().dataset.as_ref();
        let path = dataset.map(|dataset| dataset.path.as_str());
        authorize::require_for_paths(request.extensions(), &[path])?;
        let responses = self.checks.start(request.into_inner()).await?;
        Ok(Response::new(responses))
    }

    async fn register_dataset(
        &self,
        request: Request<v1::RegisterDatasetRequest>,
    ) -> Result<Response<v1::RegisterDatasetResponse>, Status> {
        let registered = self.crud.register(request.into_inner());
        registered.await.map(Response::new)
    }

    async fn create_dataset(
        &self,
        request: Request<v1::CreateDatasetRequest>,
    ) -> Result<Response<v1::CreateDatasetResponse>, Status> {
        let scope = authorize::uploads(request.extensions());
        let created = self.crud.create(request.into_inner(), &scope);
        created.await.map(Response::new)
    }

    async fn get_dataset(
        &self,
        request: Request<v1::GetDatasetRequest>,
    ) -> Result<Response<v1::GetDatasetResponse>, Status> {
        let found = self.crud.get(request.into_inner());
        found.await.map(Response::new)
    }

    async fn list_datasets(
        &self,
        request: Request<v1::ListDatasetsRequest>,
    ) -> Result<Response<v1::ListDatasetsResponse>, Status> {
        let listed = self.crud.list(request.into_inner());
        listed.await.map(Response::new)
    }

    async fn list_uploads(
        &self,
        request: Request<v1::ListUploadsRequest>,
    ) -> Result<Response<v1::ListUploadsResponse>, Status> {
        let scope = authorize::uploads(request.extensions());
        self.crud.list_uploads(&scope).await.map(Response::new)
    }

    async fn delete_upload(
        &self,
        request: Request<v1::DeleteUploadRequest>,
    ) -> Result<Response<v1::DeleteUploadResponse>, Status> {
        let scope = authorize::uploads(request.extensions());
        let deleted = self.crud.delete_upload(request.into_inner(), &scope);
        deleted.await.map(Response::new)
    }

    async fn delete_dataset(
        &self,
        request: Request<v1::DeleteDatasetRequest>,
    ) -> Result<Response<v1::DeleteDatasetResponse>, Status> {
        let deleted = self.crud.delete(request.into_inner());
        deleted.await.map(Response::new)
    }
}
