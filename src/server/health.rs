//! Health of the services and readiness of the server, which follow the live version.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio_util::sync::CancellationToken;
use tonic::server::NamedService;
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::{
    names::VersionName,
    proto::{
        open_inference::grpc_inference_service_server::GrpcInferenceServiceServer,
        v1::{
            dataset_service_server::DatasetServiceServer, model_service_server::ModelServiceServer,
            prediction_service_server::PredictionServiceServer,
            system_service_server::SystemServiceServer,
            training_service_server::TrainingServiceServer,
        },
    },
    registry::{DEFAULT_MODEL, LIVE},
    services::{
        dataset::DatasetApi, model::ModelApi, open_inference::OpenInference,
        prediction::PredictionApi, system::SystemApi, training::TrainingApi,
    },
    store::Store,
    telemetry::http::{self, Component, Readiness},
};

/// What predicts is healthy while there is a live version; the rest as long as the server runs.
pub(super) async fn follow(
    store: Store,
    mut health: HealthReporter,
    live: Arc<AtomicBool>,
    shutdown: CancellationToken,
) {
    let name = VersionName::alias(DEFAULT_MODEL, LIVE);
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
    let mut moved = store.subscribe_aliases();
    let mut told = None;
    loop {
        moved.mark_unchanged();
        let is_live = store.version(&name.model, &name.version).await.is_ok();
        live.store(is_live, Ordering::Relaxed);
        let status = if is_live {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        // Whoever watches is told of changes only.
        if told != Some(status) {
            for service in predict {
                health.set_service_status(service, status).await;
            }
            told = Some(status);
        }
        tokio::select! {
            changed = moved.changed() => if changed.is_err() { break },
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
    live: Arc<AtomicBool>,
    shutdown: CancellationToken,
) -> http::ReadinessProbe {
    Arc::new(move || {
        let serving = !shutdown.is_cancelled();
        let has_model = live.load(Ordering::Relaxed);
        let model = if has_model {
            "a live version is loaded"
        } else {
            "no live version: Predict answers FAILED_PRECONDITION"
        };
        Readiness::of(vec![
            Component {
                name: "server",
                ready: serving,
                detail: if serving { "takes calls" } else { "is ending" }.to_owned(),
            },
            Component {
                // A server without a model trains, so it is ready for that; the detail tells.
                name: "model",
                ready: true,
                detail: model.to_owned(),
            },
        ])
    })
}
