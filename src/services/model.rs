//! ModelService.

use tonic::{Request, Response, Status};

use crate::{
    artifacts::Artifacts,
    names::{self, DEFAULT_MODEL, VersionName},
    proto::v1::{self, model_service_server::ModelService},
    registry::Registry,
    store::Store,
};

use super::{
    download,
    evaluation::{self, Evaluations},
    next_page_token, page_size, page_token, status, uncompressed,
};

/// The service over its handles.
#[derive(Clone)]
pub struct ModelApi {
    /// The records.
    pub store: Store,
    /// The versions' files.
    pub artifacts: Artifacts,
    /// Versions and aliases.
    pub registry: Registry,
    /// Evaluations that run beside Predict.
    pub evaluations: Evaluations,
}

#[tonic::async_trait]
impl ModelService for ModelApi {
    type DownloadModelFileStream = download::Boxed<v1::DownloadModelFileResponse>;
    type EvaluateModelVersionStream = evaluation::Responses;

    async fn list_model_versions(
        &self,
        request: Request<v1::ListModelVersionsRequest>,
    ) -> Result<Response<v1::ListModelVersionsResponse>, Status> {
        let request = request.into_inner();
        let model = model_id(&request.parent)?;
        let limit = page_size(request.page_size, 50)?;
        let before = page_token(&request.page_token)?;
        let page = self
            .store
            .list_versions(model, before, limit)
            .await
            .map_err(status::from_store)?;
        Ok(Response::new(v1::ListModelVersionsResponse {
            versions: page.items,
            next_page_token: next_page_token(page.next),
        }))
    }

    async fn get_model_version(
        &self,
        request: Request<v1::GetModelVersionRequest>,
    ) -> Result<Response<v1::GetModelVersionResponse>, Status> {
        let name = version_name(&request.into_inner().name)?;
        let version = self
            .registry
            .version(&name)
            .await
            .map_err(status::from_registry)?;
        Ok(Response::new(v1::GetModelVersionResponse {
            version: Some(version),
        }))
    }

    async fn download_model_file(
        &self,
        request: Request<v1::DownloadModelFileRequest>,
    ) -> Result<Response<Self::DownloadModelFileStream>, Status> {
        let request = request.into_inner();
        let name = version_name(&request.name)?;
        let found = self.registry.version(&name).await;
        let version = found.map_err(status::from_registry)?;
        let file = download::choose(&version.name, &version.files, &request.file)?;
        let response = |file, data| v1::DownloadModelFileResponse { file, data };
        let stream = download::stream(&self.artifacts, file, response).await?;
        Ok(uncompressed(stream))
    }

    async fn register_version(
        &self,
        request: Request<v1::RegisterVersionRequest>,
    ) -> Result<Response<v1::RegisterVersionResponse>, Status> {
        let request = request.into_inner();
        let model = model_id(&request.parent)?;
        let (training, which) = names::checkpoint(&request.checkpoint)
            .map_err(|error| status::bad_name("checkpoint", &error))?;
        let version = self
            .registry
            .register(model, training, which)
            .await
            .map_err(status::from_registry)?;
        Ok(Response::new(v1::RegisterVersionResponse {
            version: Some(version),
        }))
    }

    async fn set_alias(
        &self,
        request: Request<v1::SetAliasRequest>,
    ) -> Result<Response<v1::SetAliasResponse>, Status> {
        let request = request.into_inner();
        let target = version_name(&request.name)?;
        check_alias(&request.alias)?;
        let moved = self
            .registry
            .set_alias(&target, &request.alias, request.expected_version)
            .await;
        let version = moved.map_err(status::from_registry)?;
        Ok(Response::new(v1::SetAliasResponse {
            version: Some(version),
        }))
    }

    async fn delete_alias(
        &self,
        request: Request<v1::DeleteAliasRequest>,
    ) -> Result<Response<v1::DeleteAliasResponse>, Status> {
        let request = request.into_inner();
        check_alias(&request.alias)?;
        let model = model_id(&request.parent)?;
        self.store
            .delete_alias(model, &request.alias)
            .await
            .map_err(status::from_store)?;
        Ok(Response::new(v1::DeleteAliasResponse {}))
    }

    async fn list_alias_events(
        &self,
        request: Request<v1::ListAliasEventsRequest>,
    ) -> Result<Response<v1::ListAliasEventsResponse>, Status> {
        let request = request.into_inner();
        let model = model_id(&request.parent)?;
        let limit = page_size(request.page_size, 50)?;
        let before = page_token(&request.page_token)?;
        let page = self
            .store
            .alias_events(model, before, limit)
            .await
            .map_err(status::from_store)?;
        Ok(Response::new(v1::ListAliasEventsResponse {
            events: page.items,
            next_page_token: next_page_token(page.next),
        }))
    }

    async fn get_evaluation(
        &self,
        request: Request<v1::GetEvaluationRequest>,
    ) -> Result<Response<v1::GetEvaluationResponse>, Status> {
        let name = version_name(&request.into_inner().name)?;
        let version = self.registry.version(&name).await;
        let version = version.map_err(status::from_registry)?;
        let Some(evaluation) = version.test else {
            return Err(status::no_evaluation(&version.name));
        };
        Ok(Response::new(v1::GetEvaluationResponse {
            model_version: version.name,
            checkpoint: version.checkpoint,
            dataset_digest: version.dataset_digest,
            evaluation: Some(evaluation),
        }))
    }

    async fn evaluate_model_version(
        &self,
        request: Request<v1::EvaluateModelVersionRequest>,
    ) -> Result<Response<Self::EvaluateModelVersionStream>, Status> {
        let responses = self.evaluations.start(request.into_inner()).await?;
        Ok(Response::new(responses))
    }
}

fn model_id(name: &str) -> Result<&str, Status> {
    names::model_id(name, DEFAULT_MODEL).map_err(|error| status::bad_name("parent", &error))
}

fn version_name(name: &str) -> Result<VersionName, Status> {
    VersionName::parse(name).map_err(|error| status::bad_name("name", &error))
}

fn check_alias(alias: &str) -> Result<(), Status> {
    if names::is_id(alias) {
        return Ok(());
    }
    Err(status::invalid("alias", &names::id_violation(alias)))
}
