use std::{net::SocketAddr, path::PathBuf, time::Duration};

use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::transport::server::TcpIncoming;
use tonic_web::GrpcWebLayer;

use super::{
    components::Components,
    error::Error,
    health, http,
    layers::{DeadlineLayer, cors},
    routes::{self, Routes},
    shutdown::{Running, cancel_on_signal},
};
use crate::{
    config::ServeConfig,
    dashboard, files,
    telemetry::{
        exporter,
        traces::{self, ExporterThread, Traces},
    },
};

/// Runs the server until SIGINT or SIGTERM.
pub(crate) async fn run(config: ServeConfig) -> Result<(), Error> {
    let shutdown = CancellationToken::new();
    let listeners = Listeners::bind(&config).await?;
    let signals = tokio::spawn(cancel_on_signal(shutdown.clone()));
    let result = serve(config, listeners, shutdown).await;
    signals.abort();
    result
}

struct Listeners {
    grpc: TcpListener,
    http: TcpListener,
}

impl Listeners {
    async fn bind(config: &ServeConfig) -> Result<Self, Error> {
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

/// Serves on the sockets until the token is cancelled.
async fn serve(
    config: ServeConfig,
    listeners: Listeners,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let ready_file = ReadyFile::prepare(&config)?;
    let metrics = exporter::install()?;
    let (grpc_address, http_address) = (listeners.grpc.local_addr()?, listeners.http.local_addr()?);
    let (traces, trace_exporter) = start_tracing(&config)?;
    let components = Components::open(&config, traces.clone()).await?;
    let tasks = TaskTracker::new();
    let supervising = start_background(&components, &tasks, &shutdown);

    let readiness = health::readiness(components.registry.subscribe_live(), shutdown.clone());
    let Routes {
        grpc: routes,
        pages,
        rpc_metrics,
    } = routes::build(
        &config,
        &components,
        routes::Context {
            traces,
            tasks: tasks.clone(),
            shutdown: shutdown.clone(),
            http_port: http_address.port(),
        },
    )?;
    let cors = cors(&config.cors_origins);
    let http = tokio::spawn(http::serve(
        listeners.http,
        http::State {
            metrics,
            readiness,
            pages,
            home: config.dashboard.then(dashboard::pages).flatten(),
            cors: cors.clone(),
        },
        shutdown.clone(),
        config.shutdown_grace,
    ));
    let grpc = tonic::transport::Server::builder()
        // For browsers that only support HTTP/1.1; other clients use HTTP/2.
        .accept_http1(true)
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .http2_keepalive_timeout(Some(Duration::from_secs(20)))
        .layer(cors)
        .layer(GrpcWebLayer::new())
        .layer(rpc_metrics)
        .layer(DeadlineLayer)
        .add_routes(routes)
        .serve_with_incoming_shutdown(
            // Otherwise the end of a response may wait 40 ms for the acknowledgement of its start.
            TcpIncoming::from(listeners.grpc).with_nodelay(Some(true)),
            shutdown.clone().cancelled_owned(),
        );
    let grpc = tokio::spawn(grpc);
    tracing::info!(grpc = %grpc_address, http = %http_address, data_dir = %config.data_dir.display(), device = components.device, "serving");
    ready_file.write(grpc_address, http_address)?;

    let running = Running {
        grpc,
        http,
        supervising,
        tasks,
        store: components.store,
    };
    let result = running.wait(&shutdown, config.shutdown_grace).await;
    if let Some(exporter) = trace_exporter {
        exporter.finish(traces::FLUSH_DEADLINE).await;
    }
    ready_file.remove()?;
    result
}

/// Starts the tasks that run as long as the server, and returns the supervisor's.
fn start_background(
    components: &Components,
    tasks: &TaskTracker,
    shutdown: &CancellationToken,
) -> tokio::task::JoinHandle<Result<(), crate::training::supervisor::Error>> {
    // Loads the live version now, so that it is ready for the first request.
    tasks.spawn({
        let (registry, shutdown) = (components.registry.clone(), shutdown.clone());
        async move { registry.follow_aliases(shutdown).await }
    });
    tasks.spawn({
        let (datasets, shutdown) = (components.datasets.clone(), shutdown.clone());
        async move { datasets.run(shutdown).await }
    });
    let (supervisor, shutdown) = (components.supervisor.clone(), shutdown.clone());
    tokio::spawn(async move { Box::pin(supervisor.run(shutdown)).await })
}

fn start_tracing(config: &ServeConfig) -> Result<(Traces, Option<ExporterThread>), Error> {
    let Some(endpoint) = &config.otlp_endpoint else {
        return Ok((Traces::off(), None));
    };
    let sample_ratio = config.trace_sample_ratio;
    let (traces, exporter) = Traces::start(&traces::Options {
        endpoint: endpoint.clone(),
        sample_ratio,
    })?;
    tracing::info!(endpoint, sample_ratio, "exporting traces");
    Ok((traces, Some(exporter)))
}

/// A file with the addresses, which exists while the server serves.
struct ReadyFile(Option<PathBuf>);

impl ReadyFile {
    fn prepare(config: &ServeConfig) -> Result<Self, Error> {
        if let Some(path) = &config.ready_file {
            // A killed server leaves its file behind, which would report this one as ready.
            files::remove_if_exists(path)?;
            if !files::parent_dir(path).is_dir() {
                return Err(Error::ReadyFile(path.clone()));
            }
        }
        Ok(ReadyFile(config.ready_file.clone()))
    }

    fn write(&self, grpc: SocketAddr, http: SocketAddr) -> Result<(), Error> {
        if let Some(path) = &self.0 {
            let addresses =
                serde_json::json!({ "grpc": grpc.to_string(), "http": http.to_string() });
            files::write_atomic(path, addresses.to_string().as_bytes())?;
        }
        Ok(())
    }

    fn remove(&self) -> Result<(), Error> {
        if let Some(path) = &self.0 {
            files::remove_if_exists(path)?;
        }
        Ok(())
    }
}
