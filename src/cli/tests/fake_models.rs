//! The model service of the tests' server: one version, 3, that was live after 2.

use std::{pin::Pin, sync::Arc};

use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use crate::proto::v1::{
    AliasEvent, CheckpointFile, DeleteAliasRequest, DeleteAliasResponse, DownloadModelFileRequest,
    DownloadModelFileResponse, EpochMetrics, GetModelVersionRequest, GetModelVersionResponse,
    ListAliasEventsRequest, ListAliasEventsResponse, ListModelVersionsRequest,
    ListModelVersionsResponse, ModelVersion, RegisterVersionRequest, RegisterVersionResponse,
    SetAliasRequest, SetAliasResponse, model_service_server::ModelService,
};

use super::fake::State;

pub(super) struct Models(pub(super) Arc<State>);

fn version(checkpoint: &str) -> Option<ModelVersion> {
    Some(ModelVersion {
        name: "models/age/versions/3".to_owned(),
        version: 3,
        checkpoint: checkpoint.to_owned(),
        metrics: Some(EpochMetrics {
            val_loss: 84.25,
            val_mae: 7.125,
            ..EpochMetrics::default()
        }),
        aliases: vec!["live".to_owned()],
        input_size: 224,
        ..ModelVersion::default()
    })
}

#[tonic::async_trait]
impl ModelService for Models {
    type DownloadModelFileStream =
        Pin<Box<dyn Stream<Item = Result<DownloadModelFileResponse, Status>> + Send>>;

    async fn list_model_versions(
        &self,
        _: Request<ListModelVersionsRequest>,
    ) -> Result<Response<ListModelVersionsResponse>, Status> {
        Ok(Response::new(ListModelVersionsResponse {
            versions: version("trainings/t/checkpoints/7").into_iter().collect(),
            next_page_token: String::new(),
        }))
    }

    async fn get_model_version(
        &self,
        request: Request<GetModelVersionRequest>,
    ) -> Result<Response<GetModelVersionResponse>, Status> {
        match request.get_ref().name.as_str() {
            "models/age/versions/3" | "models/age/versions/live" => {
                Ok(Response::new(GetModelVersionResponse {
                    version: version("trainings/t/checkpoints/7"),
                }))
            }
            name => Err(Status::not_found(format!("there is no {name}"))),
        }
    }

    /// Every file of version 3 is the same one.
    async fn download_model_file(
        &self,
        request: Request<DownloadModelFileRequest>,
    ) -> Result<Response<Self::DownloadModelFileStream>, Status> {
        let request = request.into_inner();
        if request.name != "models/age/versions/3" {
            return Err(Status::not_found(format!("there is no {}", request.name)));
        }
        let message = DownloadModelFileResponse {
            file: Some(CheckpointFile {
                name: request.file,
                size_bytes: self.0.file.len() as u64,
                sha256: self.0.sha256.clone(),
            }),
            data: self.0.file.clone().into(),
        };
        Ok(Response::new(Box::pin(tokio_stream::once(Ok(message)))))
    }

    async fn register_version(
        &self,
        request: Request<RegisterVersionRequest>,
    ) -> Result<Response<RegisterVersionResponse>, Status> {
        Ok(Response::new(RegisterVersionResponse {
            version: version(&request.get_ref().checkpoint),
        }))
    }

    async fn set_alias(
        &self,
        request: Request<SetAliasRequest>,
    ) -> Result<Response<SetAliasResponse>, Status> {
        self.0.aliased.lock().unwrap().push(request.into_inner());
        Ok(Response::new(SetAliasResponse {
            version: version("trainings/t/checkpoints/7"),
        }))
    }

    async fn delete_alias(
        &self,
        _: Request<DeleteAliasRequest>,
    ) -> Result<Response<DeleteAliasResponse>, Status> {
        Ok(Response::new(DeleteAliasResponse {}))
    }

    async fn list_alias_events(
        &self,
        _: Request<ListAliasEventsRequest>,
    ) -> Result<Response<ListAliasEventsResponse>, Status> {
        Ok(Response::new(ListAliasEventsResponse {
            events: vec![AliasEvent {
                model: "models/age".to_owned(),
                alias: "live".to_owned(),
                from_version: 2,
                to_version: 3,
                cause: "promote".to_owned(),
                event_time: None,
            }],
            next_page_token: String::new(),
        }))
    }
}
