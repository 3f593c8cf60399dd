//! The model service of the tests' server: one version, 3, that was live after 2.

use std::{pin::Pin, sync::Arc};

use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use crate::proto::v1::{
    AliasEvent, BaselineSource, CheckpointFile, DatasetSplit, DeleteAliasRequest,
    DeleteAliasResponse, DownloadModelFileRequest, DownloadModelFileResponse, EpochMetrics,
    EvaluateModelVersionRequest, EvaluateModelVersionResponse, Evaluation, EvaluationGroup,
    EvaluationProgress, EvaluationReport, GetEvaluationRequest, GetEvaluationResponse,
    GetModelVersionRequest, GetModelVersionResponse, IntervalCoverage, ListAliasEventsRequest,
    ListAliasEventsResponse, ListModelVersionsRequest, ListModelVersionsResponse, ModelVersion,
    PredictedImage, PredictionPage, RegisterVersionRequest, RegisterVersionResponse,
    SetAliasRequest, SetAliasResponse, evaluate_model_version_response::Kind,
    model_service_server::ModelService,
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

fn group() -> EvaluationGroup {
    EvaluationGroup {
        key: "age".to_owned(),
        value: "30-39".to_owned(),
        images: 12,
        mae: 4.5,
        bias: -1.25,
        rmse: 5.5,
    }
}

fn predicted(file: &str) -> PredictedImage {
    PredictedImage {
        file: file.to_owned(),
        age: 33.0,
        predicted: 45.5,
        error: 12.5,
    }
}

fn evaluation() -> Evaluation {
    Evaluation {
        images: 12,
        mae: 4.5,
        cs3: 0.25,
        cs5: 0.5,
        cs10: 0.75,
        groups: vec![group()],
        worst_group: Some(Box::new(group())),
        worst_predictions: vec![predicted("test/33_far.jpg")],
        interval_coverage: Some(IntervalCoverage {
            level: 0.8,
            coverage: 0.833,
            mean_width: 21.5,
        }),
        baseline_age: 33.25,
        baseline_mae: 9.5,
        baseline_source: BaselineSource::TrainingMean.into(),
        ..Evaluation::default()
    }
}

#[tonic::async_trait]
impl ModelService for Models {
    type DownloadModelFileStream =
        Pin<Box<dyn Stream<Item = Result<DownloadModelFileResponse, Status>> + Send>>;
    type EvaluateModelVersionStream =
        Pin<Box<dyn Stream<Item = Result<EvaluateModelVersionResponse, Status>> + Send>>;

    async fn get_evaluation(
        &self,
        request: Request<GetEvaluationRequest>,
    ) -> Result<Response<GetEvaluationResponse>, Status> {
        if request.get_ref().name != "models/age/versions/live" {
            return Err(Status::not_found("it has no stored evaluation"));
        }
        Ok(Response::new(GetEvaluationResponse {
            model_version: "models/age/versions/3".to_owned(),
            checkpoint: "trainings/t/checkpoints/7".to_owned(),
            evaluation: Some(evaluation()),
            ..GetEvaluationResponse::default()
        }))
    }

    /// Progress, a page of predictions, and the report.
    async fn evaluate_model_version(
        &self,
        request: Request<EvaluateModelVersionRequest>,
    ) -> Result<Response<Self::EvaluateModelVersionStream>, Status> {
        let request = request.into_inner();
        self.0.evaluated.lock().unwrap().push(request.clone());
        let plot = |text: &'static str| match request.include_plots {
            true => text.as_bytes().into(),
            false => Vec::new().into(),
        };
        let progress = EvaluationProgress {
            phase: "predict".to_owned(),
            done: 3,
            total: 12,
        };
        let page = PredictionPage {
            predictions: vec![predicted("test/33_far.jpg"), predicted("test/33_near.jpg")],
        };
        let report = EvaluationReport {
            model_version: "models/age/versions/3".to_owned(),
            dataset_path: "/data/faces".to_owned(),
            split: DatasetSplit::Test.into(),
            evaluation: Some(evaluation()),
            skipped_images: 1,
            warnings: vec!["two images are the same".to_owned()],
            predicted_plot_png: plot("one"),
            residual_plot_png: plot("two"),
            ..EvaluationReport::default()
        };
        let mut kinds = vec![Kind::Progress(progress)];
        if request.include_predictions {
            kinds.push(Kind::Predictions(page));
        }
        kinds.push(Kind::Report(report));
        let messages = kinds
            .into_iter()
            .map(|kind| Ok(EvaluateModelVersionResponse { kind: Some(kind) }));
        Ok(Response::new(Box::pin(tokio_stream::iter(
            messages.collect::<Vec<_>>(),
        ))))
    }

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
