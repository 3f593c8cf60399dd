//! What the server runs on: typed values that were checked, and the rules that bind several of them.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use super::{Error, HubConfig, Resolved, Source};

const MIB: usize = 1024 * 1024;

/// Everything that `visage serve` needs to know; `Default` holds the documented defaults.
#[derive(Clone, Debug, PartialEq)]
pub struct ServeConfig {
    /// Directory of the database and the checkpoints.
    pub data_dir: PathBuf,
    /// Address of the gRPC API.
    pub grpc_listen: SocketAddr,
    /// Address of metrics, health and dashboard.
    pub http_listen: SocketAddr,
    /// Whether the HTTP port also has the dashboard and the API for it.
    pub dashboard: bool,
    /// Origins whose pages may call the server from a browser, or `*` for all.
    pub cors_origins: Vec<String>,
    /// File to write once the server answers.
    pub ready_file: Option<PathBuf>,
    /// Where TensorBoard's event files are written.
    pub tensorboard: EventDirectory,
    /// Directories under which datasets may be read; not empty.
    pub data_roots: Vec<PathBuf>,
    /// Directories under which initial weights may be read; not empty.
    pub weights_roots: Vec<PathBuf>,
    /// Whether a server without a model begins with the starter.
    pub starter: bool,
    /// What computes.
    pub device: Device,
    /// Number format of predictions.
    pub precision: Precision,
    /// Threads of the processor for the model; 0 for all.
    pub threads: u32,
    /// Largest request in bytes.
    pub max_message_bytes: usize,
    /// Largest encoded image in bytes.
    pub max_image_bytes: usize,
    /// Most pixels of an image.
    pub max_image_pixels: u64,
    /// Most pixels of one side of an image.
    pub max_image_dimension: u32,
    /// Most images in one Predict call.
    pub max_images_per_request: u32,
    /// Images that may wait for the model.
    pub max_queued_images: u32,
    /// Most images in one forward pass.
    pub max_batch: u32,
    /// Model versions that stay loaded.
    pub max_loaded_models: u32,
    /// Most bytes of answers that are kept; 0 for none.
    pub response_cache_bytes: usize,
    /// Threads that decode images; 0 for one per core.
    pub decode_threads: u32,
    /// Trainings that may wait for the device.
    pub max_queued_trainings: u32,
    /// Whether archives of images may be uploaded.
    pub uploads: bool,
    /// Largest archive in bytes.
    pub max_upload_bytes: usize,
    /// Most bytes of an archive's files.
    pub max_unpacked_bytes: usize,
    /// Most entries of an archive.
    pub max_archive_entries: u32,
    /// How long an upload may lie without a change.
    pub upload_expiry: Duration,
    /// Pause between two heartbeats of a stream.
    pub heartbeat_interval: Duration,
    /// Command before `visage worker`; empty to start it directly.
    pub worker_launcher: Vec<String>,
    /// Threads of the processor for a training; 0 for as many as `threads`.
    pub worker_threads: u32,
    /// By how much a training gives way to predictions.
    pub worker_nice: u32,
    /// Longest time without a sign of life from a training's process.
    pub worker_silence_timeout: Duration,
    /// Longest time in which a living process gets nothing done.
    pub worker_stall_timeout: Duration,
    /// How many starts of a training in a row may end without a new full checkpoint, where its spec does not say.
    pub max_restarts: u32,
    /// Time that calls and trainings have to end when the server shuts down.
    pub shutdown_grace: Duration,
    /// Least severe level that is logged.
    pub log_level: LogLevel,
    /// Shape of the log lines.
    pub log_format: LogFormat,
    /// Where traces are sent over OTLP; `None` for no traces.
    pub otlp_endpoint: Option<String>,
    /// Share of the calls that are traced where the client does not say, 0 to 1.
    pub trace_sample_ratio: f64,
    /// How weights are fetched.
    pub hub: HubConfig,
}

impl Default for ServeConfig {
    fn default() -> Self {
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        Self {
            data_dir: PathBuf::from("./visage-data"),
            grpc_listen: SocketAddr::new(loopback, 50051),
            http_listen: SocketAddr::new(loopback, 50052),
            dashboard: true,
            cors_origins: Vec::new(),
            ready_file: None,
            tensorboard: EventDirectory::InDataDir,
            data_roots: vec![PathBuf::from("/")],
            weights_roots: vec![PathBuf::from("/")],
            starter: false,
            device: Device::Auto,
            precision: Precision::Auto,
            threads: 0,
            max_message_bytes: 16 * MIB,
            max_image_bytes: 16 * MIB,
            max_image_pixels: 50_000_000,
            max_image_dimension: 16_384,
            max_images_per_request: 64,
            max_queued_images: 256,
            max_batch: 32,
            max_loaded_models: 3,
            response_cache_bytes: 0,
            decode_threads: 0,
            max_queued_trainings: 100,
            uploads: true,
            max_upload_bytes: 8 * 1024 * MIB,
            max_unpacked_bytes: 32 * 1024 * MIB,
            max_archive_entries: 1_000_000,
            upload_expiry: Duration::from_secs(24 * 3600),
            heartbeat_interval: Duration::from_secs(15),
            worker_launcher: Vec::new(),
            worker_threads: 0,
            worker_nice: 10,
            worker_silence_timeout: Duration::from_secs(15),
            worker_stall_timeout: Duration::from_secs(600),
            max_restarts: 3,
            shutdown_grace: Duration::from_secs(10),
            log_level: LogLevel::Info,
            log_format: LogFormat::Auto,
            otlp_endpoint: None,
            trace_sample_ratio: 0.01,
            hub: HubConfig::default(),
        }
    }
}

/// Where TensorBoard's event files are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventDirectory {
    /// To `runs` in the data directory.
    InDataDir,
    /// To this directory.
    At(PathBuf),
    /// Nowhere.
    Off,
}

impl EventDirectory {
    /// The directory, for a server with this data directory.
    #[must_use]
    pub fn path(&self, data_dir: &Path) -> Option<PathBuf> {
        match self {
            Self::InDataDir => Some(data_dir.join("runs")),
            Self::At(directory) => Some(directory.clone()),
            Self::Off => None,
        }
    }
}

impl fmt::Display for EventDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InDataDir => f.write_str("on"),
            Self::At(directory) => write!(f, "{}", directory.display()),
            Self::Off => f.write_str("off"),
        }
    }
}

/// What computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// The first GPU where there is one, else the processor.
    Auto,
    /// The processor.
    Cpu,
    /// The GPU with this number.
    Cuda(u32),
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

/// Number format in which predictions are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// The fastest that changes the ages by little enough.
    Auto,
    /// 32 bits.
    F32,
    /// 16 bits with the exponent of f32.
    Bf16,
    /// 16 bits with a finer fraction and a smaller exponent.
    F16,
    /// 32 bits, with large filters kept in f16.
    F16Weights,
}

impl Precision {
    pub(super) const ALL: [Self; 5] = [
        Self::Auto,
        Self::F32,
        Self::Bf16,
        Self::F16,
        Self::F16Weights,
    ];

    /// The format's name in settings.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
            Self::F16Weights => "f16-weights",
        }
    }
}

/// Least severe level that is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Someone must act.
    Error,
    /// Something was recovered from.
    Warn,
    /// An operator's milestones.
    Info,
    /// What a developer wants to see.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    pub(super) const ALL: [Self; 5] = [
        Self::Error,
        Self::Warn,
        Self::Info,
        Self::Debug,
        Self::Trace,
    ];

    /// The level of this name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.as_str() == text)
    }

    /// The level's name in settings and log filters.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// Shape of the log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl LogFormat {
    pub(super) const ALL: [Self; 3] = [Self::Auto, Self::Text, Self::Json];

    /// The format's name in settings.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// Refuses what each setting alone allows but all together do not.
///
/// # Errors
/// [`Error::Contradiction`] or [`Error::RootsRequired`].
pub(super) fn check(resolved: &Resolved) -> Result<(), Error> {
    check_roots(resolved)?;
    let config = &resolved.config;
    let same_port = config.grpc_listen.port() == config.http_listen.port();
    let wildcard =
        config.grpc_listen.ip().is_unspecified() || config.http_listen.ip().is_unspecified();
    let overlap = config.grpc_listen.ip() == config.http_listen.ip() || wildcard;
    // Port 0 lets the system choose, so two of them never meet.
    if same_port && overlap && config.grpc_listen.port() != 0 {
        return Err(resolved.contradiction(
            "http_listen",
            "must not be the same address as",
            "grpc_listen",
        ));
    }
    let not_above = [
        (
            "max_batch",
            config.max_batch > config.max_queued_images,
            "max_queued_images",
        ),
        (
            "max_images_per_request",
            config.max_images_per_request > config.max_queued_images,
            "max_queued_images",
        ),
        (
            "max_image_bytes",
            config.max_image_bytes > config.max_message_bytes,
            "max_message_bytes",
        ),
        (
            "worker_silence_timeout",
            config.worker_silence_timeout > config.worker_stall_timeout,
            "worker_stall_timeout",
        ),
    ];
    for (lesser, is_above, greater) in not_above {
        if is_above {
            return Err(resolved.contradiction(lesser, "must not be above", greater));
        }
    }
    Ok(())
}

/// Whoever reaches the server may name files under its roots, so the default of everything is for this machine only.
fn check_roots(resolved: &Resolved) -> Result<(), Error> {
    let listeners = [
        ("grpc_listen", resolved.config.grpc_listen),
        ("http_listen", resolved.config.http_listen),
    ];
    let Some((listener, address)) = listeners
        .into_iter()
        .find(|(_, address)| !address.ip().is_loopback())
    else {
        return Ok(());
    };
    for setting in ["data_roots", "weights_roots"] {
        if resolved.source(setting) == &Source::Default {
            return Err(Error::RootsRequired {
                setting,
                listener,
                address,
            });
        }
    }
    Ok(())
}
