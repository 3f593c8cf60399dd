use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use axum::middleware::from_fn;
use tokio::{net::TcpListener, sync::watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    auth::{self, Auth},
    components::Components,
    error::Error,
    guards::Guards,
    health, http,
    info::client_streams,
    layers::{Allowed, CallLimitOptions, CallLimits, Rates, TrustedProxies, add_headers, cors},
    network::{
        self, ClientCertificates, PortOptions, Protocols, Sockets, Tls, TlsFiles, UnixSocket,
        follow_certificates,
    },
    routes::{self, Routes},
    shutdown::{Running, cancel_on_signal},
};
use crate::{
    config::ServeConfig,
    dashboard, files,
    maintenance::{self, Expiry, Scrub},
    names::{DEFAULT_MODEL, LIVE, VersionRef},
    store::{self, Store},
    telemetry::{
        exporter,
        metrics::Port,
        traces::{self, ExporterThread, Traces},
    },
};

/// State of a server that accepts calls.
pub(crate) struct Ready {
    pub(crate) grpc: SocketAddr,
    pub(crate) http: SocketAddr,
    pub(crate) is_tls: bool,
    /// Name of the live version of the default model.
    pub(crate) live: Option<String>,
    /// The dashboard is built in and enabled.
    pub(crate) has_dashboard: bool,
}

/// Runs the server until SIGINT or SIGTERM. `on_ready` is called once, when it accepts calls.
pub(crate) async fn run(
    config: ServeConfig,
    on_ready: impl FnOnce(Ready) + Send,
) -> Result<(), Error> {
    let shutdown = CancellationToken::new();
    let listeners = Listeners::bind(&config).await?;
    let signals = tokio::spawn(cancel_on_signal(shutdown.clone()));
    let result = serve(config, listeners, shutdown, on_ready).await;
    signals.abort();
    result
}

struct Listeners {
    grpc: Sockets,
    http: Sockets,
}

impl Listeners {
    async fn bind(config: &ServeConfig) -> Result<Self, Error> {
        let bind = async |address: SocketAddr, socket: Option<&PathBuf>| {
            let tcp = TcpListener::bind(address).await;
            let tcp = tcp.map_err(|source| Error::Listen { address, source })?;
            let unix = socket.map(|path| {
                UnixSocket::bind(path).map_err(|source| Error::ListenUnix {
                    path: path.clone(),
                    source,
                })
            });
            Ok::<_, Error>(Sockets {
                tcp,
                unix: unix.transpose()?,
            })
        };
        Ok(Listeners {
            grpc: bind(config.grpc_listen, config.grpc_socket.as_ref()).await?,
            http: bind(config.http_listen, config.http_socket.as_ref()).await?,
        })
    }
}

async fn load_tls(config: &ServeConfig) -> Result<Option<Tls>, Error> {
    let (Some(cert), Some(key)) = (&config.tls_cert, &config.tls_key) else {
        return Ok(None);
    };
    let files = TlsFiles {
        cert: cert.clone(),
        key: key.clone(),
        client_ca: config.tls_client_ca.clone(),
        // With authentication, each method and page decides: probes need no credential.
        client_certificates: match config.auth.is_off() {
            true => ClientCertificates::Required,
            false => ClientCertificates::Optional,
        },
    };
    Ok(Some(Tls::load(files).await?))
}

/// Serves on the sockets until the token is cancelled.
async fn serve(
    config: ServeConfig,
    listeners: Listeners,
    shutdown: CancellationToken,
    on_ready: impl FnOnce(Ready) + Send,
) -> Result<(), Error> {
    let ready_file = ReadyFile::prepare(&config)?;
    let metrics = exporter::install()?;
    let tls = load_tls(&config).await?;
    let is_tls = tls.is_some();
    let (grpc_address, http_address) = (
        listeners.grpc.tcp.local_addr()?,
        listeners.http.tcp.local_addr()?,
    );
    let (traces, trace_exporter) = start_tracing(&config)?;
    let components = Components::open(&config, traces.clone()).await?;
    let tasks = TaskTracker::new();
    let supervising = start_background(&components, &tasks, &shutdown);
    let live_damage = start_maintenance(&config, &components, &tasks, &shutdown);
    if let Some(tls) = tls.clone() {
        tasks.spawn(follow_certificates(tls, shutdown.clone()));
    }

    let readiness = health::readiness(
        components.registry.subscribe_live(),
        live_damage,
        grpc_address.port(),
        shutdown.clone(),
    );
    let Routes { grpc, pages } = routes::build(
        &config,
        &components,
        routes::Context {
            traces,
            tasks: tasks.clone(),
            shutdown: shutdown.clone(),
            http_port: http_address.port(),
        },
    )?;
    let home = config.dashboard.then(dashboard::pages).flatten();
    let has_dashboard = home.is_some();
    let auth = auth::open(&config, http_address.port())?;
    auth::follow(&auth.authenticator, &tasks, &shutdown);
    let audit = auth.audit.clone();
    let guards = guards(&config, auth.clone());
    let limits = connection_limits(&config);
    let proxies: Arc<[_]> = config.trusted_proxies.as_slice().into();
    let pages = http::router(http::State {
        metrics: metrics.clone(),
        readiness,
        pages,
        auth,
        home,
    });
    let pages = guards.clone().protect(pages).layer(from_fn(add_headers));
    let http = tokio::spawn(http::serve(
        listeners.http,
        pages,
        PortOptions {
            port: Port::Http,
            protocols: Protocols::Http1,
            limits,
            tls: tls.clone(),
            proxies: Arc::clone(&proxies),
        },
        metrics,
        shutdown.clone(),
        config.shutdown_grace,
    ));
    let grpc = guards.protect(grpc);
    let grpc = tokio::spawn({
        let shutdown = shutdown.clone();
        let options = PortOptions {
            port: Port::Grpc,
            protocols: Protocols::Http1AndHttp2,
            limits,
            tls,
            proxies,
        };
        async move { network::serve(listeners.grpc, grpc, options, &shutdown).await }
    });
    let scheme = if is_tls { "https" } else { "http" };
    tracing::info!(grpc = %grpc_address, http = %http_address, scheme, data_dir = %config.data_dir.display(), device = components.device, "serving");
    ready_file.write(grpc_address, http_address, scheme)?;
    on_ready(Ready {
        grpc: grpc_address,
        http: http_address,
        is_tls,
        live: live_version(&components.store).await?,
        has_dashboard,
    });

    let running = Running {
        grpc,
        http,
        supervising,
        tasks,
        store: components.store,
    };
    let result = running.wait(&shutdown, config.shutdown_grace).await;
    if let Some(audit) = audit {
        audit.flush().await;
    }
    if let Some(exporter) = trace_exporter {
        exporter.finish(traces::FLUSH_DEADLINE).await;
    }
    ready_file.remove()?;
    result
}

fn guards(config: &ServeConfig, auth: Auth) -> Guards {
    let calls_per_address = config.max_calls_per_address as usize;
    Guards {
        proxies: TrustedProxies::new(&config.trusted_proxies),
        allowed: Allowed::new(&config.allowed_hosts, &config.cors_origins),
        cors: cors(&config.cors_origins),
        auth,
        limits: CallLimits::new(CallLimitOptions {
            inflight_bytes: config.max_inflight_bytes,
            timeout: config.stall_timeout,
            calls: calls_per_address.saturating_mul(4),
            calls_per_address,
            streams: client_streams(),
        }),
        rates: Rates::new(config.max_calls_per_second),
    }
}

fn connection_limits(config: &ServeConfig) -> network::Limits {
    let limits = network::Limits {
        connections: config.max_connections as usize,
        per_address: config.max_connections_per_address as usize,
        header_timeout: config.stall_timeout,
    };
    limits.within_descriptors()
}

/// Name of the live version of the default model.
async fn live_version(store: &Store) -> Result<Option<String>, Error> {
    let live = VersionRef::Alias(LIVE.to_owned());
    match store.version(DEFAULT_MODEL, &live).await {
        Ok(version) => Ok(Some(version.name)),
        Err(store::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
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
    tasks.spawn({
        let (supervisor, shutdown) = (components.supervisor.clone(), shutdown.clone());
        async move { supervisor.watch_disk(shutdown).await }
    });
    let (supervisor, shutdown) = (components.supervisor.clone(), shutdown.clone());
    tokio::spawn(async move { Box::pin(supervisor.run(shutdown)).await })
}

/// Starts the work that nobody waits for. Returns whether a file of the live version is damaged.
fn start_maintenance(
    config: &ServeConfig,
    components: &Components,
    tasks: &TaskTracker,
    shutdown: &CancellationToken,
) -> watch::Receiver<bool> {
    let scrub = Scrub {
        store: components.store.clone(),
        artifacts: components.artifacts.clone(),
        interval: config.scrub_interval,
        is_live_damaged: watch::Sender::new(false),
    };
    let live_damage = scrub.is_live_damaged.subscribe();
    let stop = shutdown.clone();
    tasks.spawn(async move { maintenance::scrub(scrub, stop).await });
    let expiry = Expiry {
        trainings: config.training_expiry,
        events: config.event_expiry,
        alias_events: config.alias_event_expiry,
        request_ids: config.request_id_expiry,
    };
    let (store, supervisor) = (components.store.clone(), components.supervisor.clone());
    let stop = shutdown.clone();
    tasks.spawn(async move { maintenance::expire(store, supervisor, expiry, stop).await });
    live_damage
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

    fn write(&self, grpc: SocketAddr, http: SocketAddr, scheme: &str) -> Result<(), Error> {
        if let Some(path) = &self.0 {
            let addresses = serde_json::json!({
                "grpc": grpc.to_string(), "http": http.to_string(), "scheme": scheme,
            });
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
