//! Health of the services and readiness of the server, which follow the live version.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::server::NamedService;
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::{
    proto::{
        open_inference::grpc_inference_service_server::GrpcInferenceServiceServer,
        v1::{
            dataset_service_server::DatasetServiceServer, model_service_server::ModelServiceServer,
            prediction_service_server::PredictionServiceServer,
            system_service_server::SystemServiceServer,
            training_service_server::TrainingServiceServer,
        },
    },
    registry::LiveStatus,
    services::{
        dataset::DatasetApi, model::ModelApi, open_inference::OpenInference,
        prediction::PredictionApi, system::SystemApi, training::TrainingApi,
    },
    telemetry::http::{self, Component, Readiness},
};

/// What predicts is healthy while there is a live version that loads; the rest as long as the server runs.
pub(super) async fn follow(
    mut live: watch::Receiver<LiveStatus>,
    mut health: HealthReporter,
    shutdown: CancellationToken,
) {
    let always = [
        "",
        <TrainingServiceServer<TrainingApi> as NamedService>::NAME,
        <ModelServiceServer<ModelApi> as NamedService>::NAME,
        <DatasetServiceServer<DatasetApi> as NamedService>::NAME,
        <SystemServiceServer<SystemApi> as NamedService>::NAME,
    ];
    for service in always {
        health
            .set_service_status(service, ServingStatus::Serving)
            .await;
    }
    let predict = [
        <PredictionServiceServer<PredictionApi> as NamedService>::NAME,
        <GrpcInferenceServiceServer<OpenInference> as NamedService>::NAME,
    ];
    let mut told = None;
    loop {
        let status = match *live.borrow_and_update() {
            LiveStatus::Unknown => None,
            LiveStatus::Served => Some(ServingStatus::Serving),
            LiveStatus::Missing | LiveStatus::Failed(_) => Some(ServingStatus::NotServing),
        };
        // Whoever watches is told of changes only.
        if let Some(status) = status
            && told != Some(status)
        {
            for service in predict {
                health.set_service_status(service, status).await;
            }
            told = Some(status);
        }
        tokio::select! {
            changed = live.changed() => if changed.is_err() { break },
            () = shutdown.cancelled() => break,
        }
    }
    for service in always.into_iter().chain(predict) {
        health
            .set_service_status(service, ServingStatus::NotServing)
            .await;
    }
    // Ends the streams of Watch, for which the end of the server would wait.
    for service in always.into_iter().chain(predict) {
        health.clear_service_status(service).await;
    }
}

/// What the HTTP port says of it.
pub(super) fn readiness(
    live: watch::Receiver<LiveStatus>,
    shutdown: CancellationToken,
) -> http::ReadinessProbe {
    Arc::new(move || {
        let serving = !shutdown.is_cancelled();
        let model = match &*live.borrow() {
            LiveStatus::Unknown => "the live version is looked for".to_owned(),
            LiveStatus::Missing => {
                "no live version: Predict answers FAILED_PRECONDITION".to_owned()
            }
            LiveStatus::Served => "there is a live version".to_owned(),
            LiveStatus::Failed(why) => format!(
                "the live version does not load: {why}; roll back, or point the alias to another version"
            ),
        };
        Readiness::of(vec![
            Component {
                name: "server",
                ready: serving,
                detail: if serving { "takes calls" } else { "is ending" }.to_owned(),
            },
            Component {
                // A server without a model trains, and can be told to take another, so it is ready for that; the detail tells.
                name: "model",
                ready: true,
                detail: model,
            },
        ])
    })
}
