use std::sync::Arc;

use axum::{Router, middleware::from_fn};
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic_web::GrpcWebLayer;

use super::{
    components::Components,
    compression::compressed,
    error::Error,
    health,
    info::{method_names, server_info},
    layers::{DeadlineLayer, RpcMetricsLayer, require_grpc},
    reflection,
};
use crate::{
    config::ServeConfig,
    proto::{
        open_inference::grpc_inference_service_server::GrpcInferenceServiceServer,
        v1::{
            dataset_service_server::DatasetServiceServer, model_service_server::ModelServiceServer,
            prediction_service_server::PredictionServiceServer,
            system_service_server::SystemServiceServer,
            training_service_server::TrainingServiceServer,
        },
    },
    services::{
        dataset::{Checks, DatasetApi, DatasetCrud},
        disk_use::DiskUseReader,
        evaluation::Evaluations,
        event_log::EventLog,
        limit::CallLimit,
        model::ModelApi,
        open_inference::{OpenInference, rest},
        predict_page,
        prediction::{BatchStreams, PredictionApi, PredictionResolver},
        request_body::RequestBodies,
        status::Calls,
        stream_limit::StreamLimit,
        streaming_job::JobContext,
        system::SystemApi,
        training::{MAX_HUB_CHECKS, MAX_VALIDATIONS, MAX_WEIGHTS_CHECKS, TrainingApi},
        uploads,
    },
    telemetry::traces::Traces,
    training::resources::total_memory,
};

/// The handlers of both ports.
pub(super) struct Routes {
    /// The services of the gRPC port.
    pub(super) grpc: Router,
    /// The pages of the HTTP port except those of [`http`](super::http) itself.
    pub(super) pages: Router,
}

pub(super) struct Context {
    pub(super) traces: Traces,
    /// Owns the tasks of calls.
    pub(super) tasks: TaskTracker,
    pub(super) shutdown: CancellationToken,
    pub(super) http_port: u16,
}

pub(super) fn build(
    config: &ServeConfig,
    components: &Components,
    context: Context,
) -> Result<Routes, Error> {
    let Context {
        traces,
        tasks,
        shutdown,
        http_port,
    } = context;
    let services = Services::new(config, components, &tasks, &shutdown, http_port);
    let limit = config.max_message_bytes;
    let bodies = RequestBodies::new(limit, config.max_queued_images as usize);
    let predictions = services.prediction.resolver.clone();
    let mut pages = rest::router(
        services.open_inference.clone(),
        bodies.clone(),
        traces.clone(),
    );
    pages = pages.merge(predict_page::router(predictions, bodies, traces.clone()));
    pages = pages.merge(uploads::router(
        components.datasets.clone(),
        tasks.clone(),
        shutdown.clone(),
        config.uploads,
    ));
    let (reporter, health_service) = tonic_health::server::health_reporter();
    let live = components.registry.subscribe_live();
    tasks.spawn(health::follow(live, reporter, shutdown.clone()));
    let grpc = services
        .into_routes(limit, config.max_inflight_bytes)
        .add_service(compressed!(health_service));
    let grpc = reflection::add_to(grpc, &shutdown)?.prepare();
    let rpc_metrics = RpcMetricsLayer::new(method_names()).with_traces(traces);
    if config.dashboard {
        // The HTTP port has its own fallback page.
        let services = grpc.clone().into_axum_router().reset_fallback();
        pages = pages.merge(with_layers(services, rpc_metrics.clone()));
    }
    Ok(Routes {
        grpc: with_layers(grpc.into_axum_router(), rpc_metrics),
        pages,
    })
}

struct Services {
    training: TrainingApi,
    model: ModelApi,
    prediction: PredictionApi,
    dataset: DatasetApi,
    system: SystemApi,
    open_inference: OpenInference,
}

impl Services {
    fn new(
        config: &ServeConfig,
        components: &Components,
        tasks: &TaskTracker,
        shutdown: &CancellationToken,
        http_port: u16,
    ) -> Self {
        let job_context = JobContext {
            predictor: components.predictor.clone(),
            registry: components.registry.clone(),
            store: components.store.clone(),
            data_roots: components.data_roots.clone(),
            limits: components.image_limits,
            tasks: tasks.clone(),
            shutdown: shutdown.clone(),
        };
        let resolver = PredictionResolver {
            predictor: components.predictor.clone(),
            registry: components.registry.clone(),
            max_images: config.max_images_per_request as usize,
        };
        Services {
            training: TrainingApi {
                store: components.store.clone(),
                event_log: EventLog::new(components.store.clone()),
                streams: StreamLimit::new(
                    config.max_event_streams as usize,
                    config.max_event_streams_per_client as usize,
                ),
                supervisor: components.supervisor.clone(),
                artifacts: components.artifacts.clone(),
                data_roots: components.data_roots.clone(),
                weights_roots: components.weights_roots.clone(),
                limits: components.image_limits,
                memory: (components.device == "cpu")
                    .then(total_memory)
                    .filter(|bytes| *bytes > 0),
                max_restarts: config.max_restarts,
                heartbeat: config.heartbeat_interval,
                validations: CallLimit::new(Calls::Validations, MAX_VALIDATIONS),
                hub_checks: CallLimit::new(Calls::Validations, MAX_HUB_CHECKS),
                weights_checks: Arc::new(Semaphore::new(MAX_WEIGHTS_CHECKS)),
                shutdown: shutdown.clone(),
                tasks: tasks.clone(),
            },
            model: ModelApi {
                artifacts: components.artifacts.clone(),
                registry: components.registry.clone(),
                evaluations: Evaluations::new(job_context.clone()),
            },
            dataset: DatasetApi {
                checks: Checks::new(job_context),
                crud: DatasetCrud {
                    datasets: components.datasets.clone(),
                    store: components.store.clone(),
                    uploads: config.uploads,
                },
            },
            system: SystemApi {
                info: server_info(config, &components.device, http_port),
                registry: components.registry.clone(),
                disk: DiskUseReader::new(components.store.clone(), config.data_dir.clone()),
            },
            open_inference: OpenInference {
                predictions: resolver.clone(),
                live: components.registry.subscribe_live(),
                max_batch: config.max_batch as usize,
                shutdown: shutdown.clone(),
            },
            prediction: PredictionApi {
                resolver,
                batch_streams: BatchStreams::new(shutdown.clone(), tasks.clone()),
            },
        }
    }

    /// `limit` is the maximum size of a request in bytes, `responses` that of a response with
    /// images or many tensors.
    fn into_routes(self, limit: usize, responses: usize) -> tonic::service::Routes {
        tonic::service::Routes::default()
            .add_service(compressed!(
                TrainingServiceServer::new(self.training).max_decoding_message_size(limit)
            ))
            .add_service(compressed!(
                ModelServiceServer::new(self.model).max_decoding_message_size(limit)
            ))
            .add_service(compressed!(
                PredictionServiceServer::new(self.prediction)
                    .max_decoding_message_size(limit)
                    .max_encoding_message_size(responses)
            ))
            .add_service(compressed!(
                DatasetServiceServer::new(self.dataset).max_decoding_message_size(limit)
            ))
            .add_service(compressed!(
                SystemServiceServer::new(self.system).max_decoding_message_size(limit)
            ))
            .add_service(compressed!(
                GrpcInferenceServiceServer::new(self.open_inference)
                    .max_decoding_message_size(limit)
                    .max_encoding_message_size(responses)
            ))
    }
}

/// Adds the inner layers of the API.
fn with_layers(services: Router, rpc_metrics: RpcMetricsLayer) -> Router {
    services
        .layer(DeadlineLayer)
        .layer(rpc_metrics)
        .layer(GrpcWebLayer::new())
        .layer(from_fn(require_grpc))
}
