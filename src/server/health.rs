//! Health of the services and readiness of the server.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::server::NamedService;
use tonic_health::{ServingStatus, server::HealthReporter};

use super::http::{Component, Readiness, ReadinessProbe};
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
};

/// Reports services that predict as healthy while the live version loads, and the others as long
/// as the server runs.
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
    let mut reported = None;
    loop {
        let status = match *live.borrow_and_update() {
            LiveStatus::Unknown => None,
            LiveStatus::Served => Some(ServingStatus::Serving),
            LiveStatus::Missing | LiveStatus::Failed(_) => Some(ServingStatus::NotServing),
        };
        // Streams of Watch get changes only.
        if let Some(status) = status
            && reported != Some(status)
        {
            for service in predict {
                health.set_service_status(service, status).await;
            }
            reported = Some(status);
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
    // Ends the streams of Watch, which the shutdown would wait for.
    for service in always.into_iter().chain(predict) {
        health.clear_service_status(service).await;
    }
}

/// The readiness for the HTTP port.
pub(super) fn readiness(
    live: watch::Receiver<LiveStatus>,
    live_damage: watch::Receiver<bool>,
    grpc_port: u16,
    shutdown: CancellationToken,
) -> ReadinessProbe {
    Arc::new(move || {
        let serving = !shutdown.is_cancelled();
        let live = live.borrow();
        // A server without a live version can train one, so it is ready.
        let is_model_ready = matches!(*live, LiveStatus::Missing | LiveStatus::Served);
        let model = match &*live {
            LiveStatus::Unknown => "loading the live version".to_owned(),
            LiveStatus::Missing => {
                "no live version; Predict fails with FAILED_PRECONDITION".to_owned()
            }
            LiveStatus::Served => "the live version is available".to_owned(),
            LiveStatus::Failed(cause) => format!(
                "failed to load the live version: {cause}; roll back, or point the alias to another version"
            ),
        };
        let components = vec![
            Component {
                name: "server",
                ready: serving,
                detail: if serving {
                    "accepting calls"
                } else {
                    "shutting down"
                }
                .to_owned(),
            },
            Component {
                name: "model",
                ready: is_model_ready,
                detail: model,
            },
            Component {
                name: "artifacts",
                ready: !*live_damage.borrow(),
                detail: match *live_damage.borrow() {
                    true => "a file of the live version is damaged, so that the version will not load again; restore it from a backup, or point the alias to another version",
                    false => "no damage of the live version is known",
                }
                .to_owned(),
            },
        ];
        Readiness::of(grpc_port, components)
    })
}
