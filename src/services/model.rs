//! ModelService.

use tonic::{Request, Response, Status};

use super::{
    authorize,
    compression::uncompressed,
    download,
    evaluation::{self, Evaluations},
    page::{PageRequest, next_page_token},
    status,
};
use crate::{
    artifacts::Artifacts,
    names::{self, DEFAULT_MODEL, VersionName, VersionRef},
    proto::v1::{self, model_service_server::ModelService},
    registry::Registry,
};

#[derive(Clone)]
pub(crate) struct ModelApi {
    pub(crate) artifacts: Artifacts,
    pub(crate) registry: Registry,
    pub(crate) evaluations: Evaluations,
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
        let page = PageRequest::read(request.page_size, 50, &request.page_token)?;
        let page = self
            .registry
            .versions(model, page.cursor, page.limit)
            .await?;
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
        let version = self.registry.version(&name).await?;
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
        let version = self.registry.version(&name).await?;
        let file = download::find_file(&version.name, &version.files, &request.file)?;
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
        let version = if request.starter {
            if !request.checkpoint.is_empty() {
                let description = format!(
                    "must be empty if starter is true, got {:?}",
                    request.checkpoint
                );
                return Err(status::invalid("checkpoint", description));
            }
            self.registry.add_starter(model).await?
        } else {
            let (training, which) = names::checkpoint(&request.checkpoint)
                .map_err(|error| status::invalid("checkpoint", error))?;
            self.registry.register(model, training, which).await?
        };
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
        let (version, from_version) = self
            .registry
            .set_alias(&target, &request.alias, request.expected_version)
            .await?;
        Ok(Response::new(v1::SetAliasResponse {
            version: Some(version),
            from_version,
        }))
    }

    async fn delete_model_version(
        &self,
        request: Request<v1::DeleteModelVersionRequest>,
    ) -> Result<Response<v1::DeleteModelVersionResponse>, Status> {
        let name = version_name(&request.into_inner().name)?;
        let VersionRef::Number(number) = name.version else {
            return Err(status::invalid(
                "name",
                "must end in the number of a version, not in an alias",
            ));
        };
        let freed_bytes = self.registry.delete_version(&name.model, number).await?;
        Ok(Response::new(v1::DeleteModelVersionResponse {
            freed_bytes,
        }))
    }

    async fn delete_alias(
        &self,
        request: Request<v1::DeleteAliasRequest>,
    ) -> Result<Response<v1::DeleteAliasResponse>, Status> {
        let request = request.into_inner();
        check_alias(&request.alias)?;
        let model = model_id(&request.parent)?;
        self.registry.delete_alias(model, &request.alias).await?;
        Ok(Response::new(v1::DeleteAliasResponse {}))
    }

    async fn list_alias_events(
        &self,
        request: Request<v1::ListAliasEventsRequest>,
    ) -> Result<Response<v1::ListAliasEventsResponse>, Status> {
        let request = request.into_inner();
        let model = model_id(&request.parent)?;
        let page = PageRequest::read(request.page_size, 50, &request.page_token)?;
        let page = self
            .registry
            .alias_events(model, page.cursor, page.limit)
            .await?;
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
        let version = self.registry.version(&name).await?;
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
        let dataset = request.get_ref().dataset.as_ref();
        let path = dataset.map(|dataset| dataset.path.as_str());
        authorize::require_for_paths(request.extensions(), &[path])?;
        let responses = self.evaluations.start(request.into_inner()).await?;
        Ok(Response::new(responses))
    }
}

fn model_id(name: &str) -> Result<&str, Status> {
    names::model_id(name, DEFAULT_MODEL).map_err(|error| status::invalid("parent", error))
}

fn version_name(name: &str) -> Result<VersionName, Status> {
    VersionName::parse(name).map_err(|error| status::invalid("name", error))
}

fn check_alias(alias: &str) -> Result<(), Status> {
    if names::is_id(alias) {
        return Ok(());
    }
    let description =
        format!("must be 1 to 63 of a-z, 0-9 and - and start with a letter, got {alias:?}");
    Err(status::invalid("alias", description))
}
