//! The composition root: what is made of what, in which order, and how it ends.
//!
//! Start: database and files, engine, registry, supervisor, then the ports, and the ready file last. End: the ports stop taking calls, streams end
//! with UNAVAILABLE, the worker is asked to end, and after a grace everything that is left is dropped.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{service::Routes, transport::server::TcpIncoming};
use tonic_web::GrpcWebLayer;

use crate::{
    artifacts::{self, Artifacts},
    config::{self, HubConfig, ServeConfig},
    dashboard,
    dataset::{self, Roots},
    files,
    imaging::Limits,
    inference::{Engine, EngineOptions, Predictor},
    library::{self, Library, unpack},
    model::{
        self, device,
        precision::{Precision, PrecisionPolicy},
    },
    proto::{
        DESCRIPTOR,
        open_inference::grpc_inference_service_server::GrpcInferenceServiceServer,
        v1::{
            self, dataset_service_server::DatasetServiceServer,
            model_service_server::ModelServiceServer,
            prediction_service_server::PredictionServiceServer,
            system_service_server::SystemServiceServer,
            training_service_server::TrainingServiceServer,
        },
        worker_v1,
    },
    registry::{self, Registry},
    services::{
        dataset::{Checks, DatasetApi, DatasetCrud},
        deadline::DeadlineLayer,
        evaluation::{self, Evaluations},
        model::ModelApi,
        open_inference::{OpenInference, rest},
        predict_batch::BatchCalls,
        prediction::PredictionApi,
        system::SystemApi,
        training::{MAX_VALIDATIONS, MAX_WEIGHTS_CHECKS, TrainingApi},
        uploads::{self, Uploading},
    },
    store::{self, Store},
    telemetry::{
        exporter, http, metrics,
        rpc::RpcMetricsLayer,
        traces::{self, Traces},
    },
    training::{
        machine::total_memory,
        supervisor::{self, Supervisor, SupervisorOptions},
    },
};

mod health;
mod reflection;
mod web;

/// Lets a generated server read gzip and deflate, and compress its responses with gzip for clients that accept it.
///
/// A message may be as large decompressed as without compression: decompression stops at the limit. The generated servers have no trait in common.
macro_rules! compressed {
    ($server:expr) => {
        $server
            .accept_compressed(::tonic::codec::CompressionEncoding::Gzip)
            .accept_compressed(::tonic::codec::CompressionEncoding::Deflate)
            .send_compressed(::tonic::codec::CompressionEncoding::Gzip)
    };
}
use compressed;

/// Why the server does not start, or ended early.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address cannot be listened on.
    #[error("failed to listen on {address}: {source}; is another server running there?")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// The ready file cannot be written.
    #[error("ready_file {}: its directory does not exist; make it, or name another file", .0.display())]
    ReadyFile(PathBuf),
    /// The database.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The stored files.
    #[error(transparent)]
    Artifacts(#[from] artifacts::Error),
    /// A root is no directory.
    #[error(transparent)]
    Roots(#[from] dataset::Error),
    /// The device.
    #[error(transparent)]
    Model(#[from] model::Error),
    /// The starter could not be registered.
    #[error("failed to register the starter: {0}")]
    Starter(#[from] registry::Error),
    /// What an earlier server left behind could not be accounted for.
    #[error(transparent)]
    Supervisor(#[from] supervisor::Error),
    /// The directories of the datasets.
    #[error(transparent)]
    Library(#[from] library::Error),
    /// A thread could not be started or a file not be written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The decoding pool could not be started.
    #[error("failed to start the decoding threads: {0}")]
    Pool(#[from] rayon::ThreadPoolBuildError),
    /// The metrics could not be installed.
    #[error(transparent)]
    Metrics(#[from] exporter::Error),
    /// The traces cannot be sent where the setting says.
    #[error(transparent)]
    Traces(#[from] traces::Error),
    /// A port failed while it served.
    #[error("the gRPC port failed: {0}")]
    Transport(#[from] tonic::transport::Error),
    /// The reflection service could not read the descriptors.
    #[error("the reflection service failed: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// Runs the server until SIGINT or SIGTERM.
///
/// # Errors
/// When it cannot start, or a port fails.
pub async fn run(config: ServeConfig) -> Result<(), Error> {
    let shutdown = CancellationToken::new();
    let listeners = Listeners::bind(&config).await?;
    let signals = tokio::spawn(cancel_on_signal(shutdown.clone()));
    let result = serve(config, listeners, shutdown).await;
    signals.abort();
    result
}

/// Sockets that are listened on, so that a caller may choose port 0 and know what it got.
#[derive(Debug)]
pub struct Listeners {
    grpc: TcpListener,
    http: TcpListener,
}

impl Listeners {
    /// Binds both ports.
    ///
    /// # Errors
    /// An address that is taken or not this machine's.
    pub async fn bind(config: &ServeConfig) -> Result<Self, Error> {
        let bind = async |address: SocketAddr| {
            let bound = TcpListener::bind(address).await;
            bound.map_err(|source| Error::Listen { address, source })
        };
        Ok(Listeners {
            grpc: bind(config.grpc_listen).await?,
            http: bind(config.http_listen).await?,
        })
    }
}

/// Runs the server on these sockets until the token is cancelled.
///
/// # Errors
/// When it cannot start, or a port fails.
pub async fn serve(
    config: ServeConfig,
    listeners: Listeners,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    if let Some(path) = &config.ready_file {
        // One that a killed server left behind would be believed.
        files::remove_if_there(path)?;
        if !files::directory_of(path).is_dir() {
            return Err(Error::ReadyFile(path.clone()));
        }
    }
    let metrics_handle = exporter::install()?;
    let (grpc_address, http_address) = (listeners.grpc.local_addr()?, listeners.http.local_addr()?);
    let (traces, exporting) = start_tracing(&config)?;
    let components = Components::open(&config, traces.clone()).await?;
    let tasks = TaskTracker::new();
    let supervisor = components.supervisor.clone();
    let supervising = tokio::spawn({
        let (supervisor, shutdown) = (supervisor.clone(), shutdown.clone());
        async move { supervisor.run(shutdown).await }
    });
    // Opened now, so that the live version answers with the first request.
    tasks.spawn({
        let (registry, shutdown) = (components.registry.clone(), shutdown.clone());
        async move { registry.follow_aliases(shutdown).await }
    });
    let (reporter, health_service) = tonic_health::server::health_reporter();
    let live = components.registry.subscribe_live();
    tasks.spawn(health::follow(live.clone(), reporter, shutdown.clone()));

    tasks.spawn({
        let (library, shutdown) = (components.library.clone(), shutdown.clone());
        async move { library.run(shutdown).await }
    });

    let limit = config.max_message_bytes;
    let background = evaluation::JobContext {
        predictor: components.predictor.clone(),
        registry: components.registry.clone(),
        store: components.store.clone(),
        data_roots: components.data_roots.clone(),
        limits: limits(&config),
        shutdown: shutdown.clone(),
    };
    let dataset = DatasetApi {
        checks: Checks::new(background.clone(), tasks.clone()),
        crud: DatasetCrud {
            library: components.library.clone(),
            store: components.store.clone(),
            uploads: config.uploads,
        },
    };
    let training = TrainingApi {
        store: components.store.clone(),
        supervisor,
        artifacts: components.artifacts.clone(),
        data_roots: components.data_roots,
        weights_roots: components.weights_roots,
        limits: limits(&config),
        memory: (components.device == "cpu")
            .then(total_memory)
            .filter(|bytes| *bytes > 0),
        max_restarts: config.max_restarts,
        heartbeat: config.heartbeat_interval,
        validations: Arc::new(Semaphore::new(MAX_VALIDATIONS)),
        weights_checks: Arc::new(Semaphore::new(MAX_WEIGHTS_CHECKS)),
        shutdown: shutdown.clone(),
        tasks: tasks.clone(),
    };
    let model = ModelApi {
        store: components.store.clone(),
        artifacts: components.artifacts.clone(),
        registry: components.registry.clone(),
        evaluations: Evaluations::new(background, tasks.clone()),
    };
    let prediction = PredictionApi {
        predictor: components.predictor,
        registry: components.registry.clone(),
        max_images: config.max_images_per_request as usize,
        batch_calls: BatchCalls::new(shutdown.clone(), tasks.clone()),
    };
    let readiness = health::readiness(live.clone(), shutdown.clone());
    let open_inference = OpenInference {
        predictions: prediction.clone(),
        store: components.store.clone(),
        readiness: Arc::clone(&readiness),
        live: live.clone(),
        max_batch: config.max_batch as usize,
        shutdown: shutdown.clone(),
    };
    let system = SystemApi {
        info: server_info(&config, &components.device, http_address.port()),
        registry: components.registry,
    };
    let mut pages = rest::router(
        open_inference.clone(),
        rest::Limits {
            body: limit,
            requests: config.max_queued_images as usize,
        },
        traces.clone(),
    );
    pages = pages.merge(uploads::router(
        Uploading {
            library: components.library,
            shutdown: shutdown.clone(),
            tasks: tasks.clone(),
        },
        config.uploads,
    ));
    let routes = Routes::default()
        .add_service(compressed!(
            TrainingServiceServer::new(training).max_decoding_message_size(limit)
        ))
        .add_service(compressed!(
            ModelServiceServer::new(model).max_decoding_message_size(limit)
        ))
        .add_service(compressed!(
            PredictionServiceServer::new(prediction)
                .max_decoding_message_size(limit)
                .max_encoding_message_size(usize::MAX)
        ))
        .add_service(compressed!(
            DatasetServiceServer::new(dataset).max_decoding_message_size(limit)
        ))
        .add_service(compressed!(
            SystemServiceServer::new(system).max_decoding_message_size(limit)
        ))
        .add_service(compressed!(
            GrpcInferenceServiceServer::new(open_inference)
                .max_decoding_message_size(limit)
                .max_encoding_message_size(usize::MAX)
        ))
        .add_service(compressed!(health_service));
    let routes = reflection::add_to(routes, &shutdown)?.prepare();
    let rpc_metrics = RpcMetricsLayer::new(method_names()).with_traces(traces);
    if config.dashboard {
        pages = pages.merge(web::api(routes.clone(), rpc_metrics.clone()));
    }
    let cors = web::cors(&config.cors_origins);
    let http = tokio::spawn(http::serve(
        listeners.http,
        http::State {
            metrics: metrics_handle,
            readiness,
            pages,
            home: config.dashboard.then(dashboard::pages).flatten(),
            cors: cors.clone(),
        },
        shutdown.clone(),
        config.shutdown_grace,
    ));
    let grpc = tonic::transport::Server::builder()
        // Browsers that speak HTTP/1.1 only; everybody else begins with HTTP/2.
        .accept_http1(true)
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .http2_keepalive_timeout(Some(Duration::from_secs(20)))
        .layer(cors)
        .layer(GrpcWebLayer::new())
        .layer(rpc_metrics)
        .layer(DeadlineLayer)
        .add_routes(routes)
        .serve_with_incoming_shutdown(
            // Else the end of an answer may wait 40 ms until the client has acknowledged its beginning.
            TcpIncoming::from(listeners.grpc).with_nodelay(Some(true)),
            shutdown.clone().cancelled_owned(),
        );
    let grpc = tokio::spawn(grpc);
    tracing::info!(grpc = %grpc_address, http = %http_address, data_dir = %config.data_dir.display(), device = components.device, "serving");
    if let Some(path) = &config.ready_file {
        let ready = serde_json::json!({ "grpc": grpc_address.to_string(), "http": http_address.to_string() });
        files::write_durably(path, ready.to_string().as_bytes())?;
    }

    let running = Running {
        grpc,
        http,
        supervising,
        tasks,
        store: components.store,
    };
    let result = running.wait(&shutdown, config.shutdown_grace).await;
    if let Some(exporting) = exporting {
        exporting.finish(traces::FLUSH_DEADLINE).await;
    }
    if let Some(path) = &config.ready_file {
        files::remove_if_there(path)?;
    }
    result
}

/// What the server is made of.
struct Components {
    store: Store,
    artifacts: Artifacts,
    predictor: Predictor,
    registry: Registry,
    supervisor: Supervisor,
    library: Library,
    data_roots: Roots,
    weights_roots: Roots,
    device: String,
}

impl Components {
    async fn open(config: &ServeConfig, traces: Traces) -> Result<Self, Error> {
        let store = Store::open(&config.data_dir).await?;
        // Absolute, because a training's process is told of them.
        let data_dir = fs_err::canonicalize(&config.data_dir)?;
        let artifacts = Artifacts::local(&data_dir.join("artifacts")).await?;
        let kept = store.referenced_digests().await?;
        artifacts.sweep(&kept, Duration::ZERO).await?;
        let mut data_directories = config.data_roots.clone();
        data_directories.push(Library::prepare(&data_dir)?);
        let data_roots = Roots::new(data_directories.clone())?;
        let weights_directory = data_dir.join("weights");
        fs_err::create_dir_all(&weights_directory)?;
        let mut weights_directories = vec![weights_directory];
        weights_directories.extend(config.weights_roots.iter().cloned());
        let weights_roots = Roots::of_weights(weights_directories.clone())?;
        let device = device::select(&config.device.to_string())?;
        let precision = match config.precision {
            config::Precision::Auto => PrecisionPolicy::Auto,
            config::Precision::F32 => PrecisionPolicy::Only(Precision::F32),
            config::Precision::Bf16 => PrecisionPolicy::Only(Precision::Bf16),
            config::Precision::F16 => PrecisionPolicy::Only(Precision::F16),
            config::Precision::F16Weights => PrecisionPolicy::Only(Precision::F16Weights),
        };
        precision.check(device)?;
        let (engine, _thread) = Engine::start(EngineOptions {
            device,
            pipelined: device != tch::Device::Cpu,
            precision,
            threads: config.threads as usize,
            max_batch: config.max_batch as usize,
            max_queued: config.max_queued_images as usize,
            max_loaded: config.max_loaded_models as usize,
        })?;
        let max_queued = config.max_queued_images as usize;
        let predictor = Predictor::new(
            engine,
            config.decode_threads as usize,
            max_queued,
            config.response_cache_bytes as u64,
            limits(config),
        )?;
        let registry = Registry::new(store.clone(), artifacts.clone(), predictor.clone());
        if config.starter {
            registry.register_starter().await?;
        }
        let device = device::name(device);
        metrics::build_info(env!("CARGO_PKG_VERSION"), device::LIBTORCH_VERSION, &device);
        let options = SupervisorOptions {
            work_dir: data_dir.join("work"),
            reserve_file: data_dir.join("reserve"),
            event_directory: config.tensorboard.path(&data_dir),
            launcher: config.worker_launcher.clone(),
            silence_timeout: config.worker_silence_timeout,
            stall_timeout: config.worker_stall_timeout,
            grace: config.shutdown_grace,
            max_restarts: config.max_restarts,
            max_queued: config.max_queued_trainings as usize,
            device: device.clone(),
            threads: match config.worker_threads {
                0 => config.threads,
                threads => threads,
            },
            nice: config.worker_nice,
            data_roots: data_directories.iter().map(|path| to_utf8(path)).collect(),
            weights_roots: weights_directories
                .iter()
                .map(|path| to_utf8(path))
                .collect(),
            hub: hub_access(&config.hub, &data_dir),
            limits: limits(config),
            traces,
        };
        let supervisor = Supervisor::new(
            store.clone(),
            artifacts.clone(),
            Arc::new(registry.clone()),
            options,
        );
        let library = Library::open(
            store.clone(),
            data_roots.clone(),
            library::Options {
                max_upload_bytes: config.max_upload_bytes as u64,
                upload_expiry: config.upload_expiry,
                limits: unpack::Limits {
                    bytes: config.max_unpacked_bytes as u64,
                    entries: config.max_archive_entries.into(),
                },
                images: limits(config),
                data_dir,
            },
        )
        .await?;
        Ok(Components {
            store,
            artifacts,
            predictor,
            registry,
            supervisor,
            library,
            data_roots,
            weights_roots,
            device,
        })
    }
}

/// The tasks that are waited for at the end.
struct Running {
    grpc: tokio::task::JoinHandle<Result<(), tonic::transport::Error>>,
    http: tokio::task::JoinHandle<()>,
    supervising: tokio::task::JoinHandle<Result<(), supervisor::Error>>,
    tasks: TaskTracker,
    store: Store,
}

impl Running {
    /// Waits for the token or a port's failure, then for everything to end, but not longer than the grace.
    async fn wait(mut self, shutdown: &CancellationToken, grace: Duration) -> Result<(), Error> {
        let failed = tokio::select! {
            () = shutdown.cancelled() => Ok(()),
            ended = &mut self.grpc => flatten(ended).map_err(Error::from),
            ended = &mut self.http => flatten(ended.map(Ok)),
            ended = &mut self.supervising => flatten(ended).map_err(Error::from),
        };
        shutdown.cancel();
        tracing::info!("ending");
        self.tasks.close();
        let all = async {
            self.tasks.wait().await;
            if !self.supervising.is_finished() {
                drop((&mut self.supervising).await);
            }
            if !self.grpc.is_finished() {
                drop((&mut self.grpc).await);
            }
            if !self.http.is_finished() {
                drop((&mut self.http).await);
            }
        };
        // Twice the grace: the worker has one grace of its own.
        if tokio::time::timeout(grace * 2, all).await.is_err() {
            tracing::warn!("calls were still running after the grace and are dropped");
            self.grpc.abort();
        }
        self.store.close().await?;
        failed
    }
}

/// A panic of a task becomes a panic here; it has been reported when it happened.
fn flatten<E>(ended: Result<Result<(), E>, tokio::task::JoinError>) -> Result<(), E> {
    match ended {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Ok(()),
    }
}

async fn cancel_on_signal(shutdown: CancellationToken) {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = match (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) {
        (Ok(interrupt), Ok(terminate)) => (interrupt, terminate),
        (Err(error), _) | (_, Err(error)) => {
            tracing::error!(%error, "failed to listen for signals; end the server with SIGKILL");
            return;
        }
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    shutdown.cancel();
    // A second Ctrl-C does not wait for the grace.
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    tracing::warn!("ended at once on a second signal");
    std::process::exit(130);
}

/// All methods of the API as `package.Service/Method`, for the metrics' labels.
fn method_names() -> Vec<String> {
    let pool = prost_reflect::DescriptorPool::decode(DESCRIPTOR)
        .expect("the embedded descriptors were made by the build");
    let mut names: Vec<String> = pool
        .services()
        .flat_map(|service| {
            service
                .methods()
                .map(|method| format!("{}/{}", method.parent_service().full_name(), method.name()))
                .collect::<Vec<_>>()
        })
        .collect();
    names.extend(["grpc.health.v1.Health/Check", "grpc.health.v1.Health/Watch"].map(str::to_owned));
    names
}

fn server_info(config: &ServeConfig, device: &str, http_port: u16) -> v1::GetServerInfoResponse {
    let threads = match config.threads {
        0 => std::thread::available_parallelism()
            .map_or(1, |count| u32::try_from(count.get()).unwrap_or(u32::MAX)),
        threads => threads,
    };
    v1::GetServerInfoResponse {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        libtorch_version: device::LIBTORCH_VERSION.to_owned(),
        device: device.to_owned(),
        threads,
        limits: Some(v1::Limits {
            max_message_bytes: config.max_message_bytes as u64,
            max_image_bytes: config.max_image_bytes as u64,
            max_image_pixels: config.max_image_pixels,
            max_images_per_request: config.max_images_per_request,
            max_queued_images: config.max_queued_images,
            max_queued_trainings: config.max_queued_trainings,
            heartbeat_interval: prost_types::Duration::try_from(config.heartbeat_interval).ok(),
            max_upload_bytes: match config.uploads {
                true => config.max_upload_bytes as u64,
                false => 0,
            },
            max_unpacked_bytes: config.max_unpacked_bytes as u64,
            max_archive_entries: config.max_archive_entries,
        }),
        features: ["annotate", "explain", "detect_faces", "average_flip"]
            .map(str::to_owned)
            .to_vec(),
        start_time: Some(SystemTime::now().into()),
        data_roots: config.data_roots.iter().map(|path| to_utf8(path)).collect(),
        weights_roots: config
            .weights_roots
            .iter()
            .map(|path| to_utf8(path))
            .collect(),
        live_model: String::new(),
        http_port: http_port.into(),
    }
}

/// The traces that the settings want, and the thread that sends them.
fn start_tracing(config: &ServeConfig) -> Result<(Traces, Option<traces::ExporterThread>), Error> {
    let Some(endpoint) = &config.otlp_endpoint else {
        return Ok((Traces::off(), None));
    };
    let options = traces::Options {
        endpoint: endpoint.clone(),
        sample_ratio: config.trace_sample_ratio,
    };
    let (traces, exporting) = Traces::start(&options)?;
    tracing::info!(
        endpoint,
        sample_ratio = config.trace_sample_ratio,
        "sends traces"
    );
    Ok((traces, Some(exporting)))
}

fn limits(config: &ServeConfig) -> Limits {
    Limits {
        max_bytes: config.max_image_bytes as u64,
        max_pixels: config.max_image_pixels,
        max_dimension: config.max_image_dimension,
    }
}

fn hub_access(hub: &HubConfig, data_dir: &Path) -> worker_v1::HubAccess {
    let cache_dir = hub
        .cache_dir
        .clone()
        .unwrap_or_else(|| data_dir.join("hub"));
    worker_v1::HubAccess {
        endpoint: hub.endpoint.clone(),
        cache_dir: to_utf8(&cache_dir),
        token: hub.token.clone().unwrap_or_default(),
        offline: hub.offline,
        torch_home: hub.torch_home.as_deref().map(to_utf8).unwrap_or_default(),
    }
}

fn to_utf8(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
