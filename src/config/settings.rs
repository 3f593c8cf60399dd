//! The settings of the server.
//!
//! One table declares each setting with its name, type, default, range and description. The fields
//! of [`ServeConfig`], the keys of the file, the variables, the flags and the documentation follow
//! from it.

use std::{
    net::{Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
    path::PathBuf,
    time::Duration,
};

use ipnet::IpNet;

use super::{AuthMethods, Device, HubConfig, Location, LogFormat, LogLevel, Precision};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
const MONTH: Duration = Duration::from_secs(30 * 24 * 3600);

/// A setting as the file, the variables, the flags and the documentation present it.
#[derive(Debug)]
pub(crate) struct Setting {
    /// The key in the file, such as `max_batch`.
    pub name: &'static str,
    /// The description, in sentences.
    pub doc: &'static str,
    /// The default in words, if its value alone is not clear.
    pub(super) default_note: Option<&'static str>,
    pub(super) field: Field,
}

impl Setting {
    /// The environment variable, such as `VISAGE_MAX_BATCH`.
    #[must_use]
    pub(crate) fn variable(&self) -> String {
        format!("VISAGE_{}", self.name.to_ascii_uppercase())
    }

    /// The flag without the dashes, such as `max-batch`.
    #[must_use]
    pub(crate) fn flag(&self) -> String {
        self.name.replace('_', "-")
    }

    /// Returns whether the flag needs no value.
    #[must_use]
    pub(crate) fn is_switch(&self) -> bool {
        matches!(self.field, Field::Switch(_))
    }

    /// Returns whether the flag may be repeated.
    #[must_use]
    pub(crate) fn is_list(&self) -> bool {
        matches!(
            self.field,
            Field::Paths(_)
                | Field::Words(_)
                | Field::Origins(_)
                | Field::Hosts(_)
                | Field::Networks(_)
                | Field::Auth(_)
        )
    }
}

/// The setting of this name.
pub(super) fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

type Get<T> = fn(&mut ServeConfig) -> &mut T;

/// Type, range and field of a setting.
#[derive(Debug)]
pub(super) enum Field {
    Path(Get<PathBuf>),
    OptionalPath(Get<Option<PathBuf>>),
    Paths(Get<Vec<PathBuf>>),
    Words(Get<Vec<String>>),
    Origins(Get<Vec<String>>),
    Hosts(Get<Vec<String>>),
    Networks(Get<Vec<IpNet>>),
    Auth(Get<AuthMethods>),
    Text(Get<Option<String>>),
    Address(Get<SocketAddr>),
    Count(RangeInclusive<u32>, Get<u32>),
    Pixels(RangeInclusive<u64>, Get<u64>),
    Bytes(RangeInclusive<usize>, Get<usize>),
    Duration(RangeInclusive<Duration>, Get<Duration>),
    Location(Get<Location>),
    Switch(Get<bool>),
    Device(Get<Device>),
    Precision(Get<Precision>),
    LogLevel(Get<LogLevel>),
    LogFormat(Get<LogFormat>),
    Endpoint(Get<Option<String>>),
    Share(Get<f64>),
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// `name: type = default, Kind(range), "description" (default in words);`
macro_rules! settings {
    ($($name:ident: $type:ty = $default:expr, $kind:ident$(($range:expr))?, $doc:literal$(($note:literal))?;)*) => {
        /// The checked settings of a server; [`SETTINGS`] describes the fields, and `Default` has
        /// their documented defaults.
        #[derive(Clone, Debug, PartialEq)]
        pub(crate) struct ServeConfig {
            $(#[doc = $doc] pub $name: $type,)*
            /// Download of weights.
            pub hub: HubConfig,
        }

        impl Default for ServeConfig {
            fn default() -> Self {
                Self {
                    $($name: $default,)*
                    hub: HubConfig::default(),
                }
            }
        }

        /// All settings, in the order of the documentation.
        pub(crate) static SETTINGS: &[Setting] = &[$(Setting {
            name: stringify!($name),
            doc: $doc,
            default_note: settings!(@note $($note)?),
            field: Field::$kind($($range,)? |config| &mut config.$name),
        },)*];
    };
    (@note) => { None };
    (@note $note:literal) => { Some($note) };
}

settings! {
    data_dir: PathBuf = PathBuf::from("./visage-data"), Path,
        "Directory of the database, the checkpoints and uploaded datasets; created if it is missing.";
    grpc_listen: SocketAddr = loopback(50051), Address,
        "Address of the gRPC API; port 0 lets the system choose.";
    http_listen: SocketAddr = loopback(50052), Address,
        "Address of metrics, health and dashboard; port 0 lets the system choose.";
    grpc_socket: Option<PathBuf> = None, OptionalPath,
        "Path of a Unix socket that serves the gRPC API too, without TLS, for the server's user and group.";
    http_socket: Option<PathBuf> = None, OptionalPath,
        "Path of a Unix socket that serves the HTTP port too, without TLS, for the server's user and group.";
    dashboard: bool = true, Switch,
        "Serve the dashboard on the HTTP port, and the whole API as gRPC-Web, which the dashboard uses.";
    cors_origins: Vec<String> = Vec::new(), Origins,
        "Origins such as https://example.org whose pages may call both ports from a browser, or `*` for all; the dashboard needs none.";
    allowed_hosts: Vec<String> = Vec::new(), Hosts,
        "Names such as visage.example.org, with or without a port, under which clients may reach both ports, or `*` for all; addresses and `localhost` are always allowed. A request for another name is refused, because a web page could have caused it by DNS rebinding.";
    auth: AuthMethods = AuthMethods::default(), Auth,
        "Credentials that clients must have: `tokens` (of `tokens_file`), `certificates` (with `tls_client_ca`), `oidc` (with `oidc_issuer`), or several of them; `off` allows every client everything."
        ("`off`; required unless both addresses are loopback");
    tokens_file: Option<PathBuf> = None, OptionalPath,
        "File of the tokens, users and certificates with their roles; `visage token` edits it, and a change takes effect without a restart."
        ("`tokens.toml` in `data_dir`");
    insecure_no_auth: bool = false, Switch,
        "Accept `auth = off` on addresses that other machines reach.";
    insecure_plaintext: bool = false, Switch,
        "Accept credentials without TLS on addresses that other machines reach, for example because a proxy in front of the server ends TLS.";
    tls_cert: Option<PathBuf> = None, OptionalPath,
        "Certificate chain (PEM) of both ports, which enables TLS; read again on SIGHUP and when it changes.";
    tls_key: Option<PathBuf> = None, OptionalPath,
        "Private key (PEM) of `tls_cert`.";
    tls_client_ca: Option<PathBuf> = None, OptionalPath,
        "Certificates (PEM) of the authorities that sign client certificates.";
    oidc_issuer: Option<String> = None, Text,
        "Issuer (`iss`) of accepted JSON Web Tokens.";
    oidc_audience: Option<String> = None, Text,
        "Audience (`aud`) of accepted JSON Web Tokens.";
    oidc_jwks: Option<String> = None, Text,
        "File or URL (https, or http on a loopback address) of the issuer's keys; RS256, ES256 and EdDSA."
        ("`jwks_uri` of the issuer's discovery document");
    oidc_roles_claim: Option<String> = None, Text,
        "Claim with the roles, such as `groups` or `realm_access.roles`; names that are not roles are ignored."
        ("`roles`");
    trusted_proxies: Vec<IpNet> = Vec::new(), Networks,
        "Networks such as 10.0.0.0/8 of proxies whose `client-id` and `x-forwarded-for` headers are believed.";
    audit_log: Location = Location::InDataDir, Location,
        "File of the audit log, one JSON object for each change and each refused call; `on` applies with `auth` only."
        ("`on`: `audit.jsonl` in `data_dir`");
    max_connections: u32 = 4096, Count(16..=1_000_000),
        "Open connections of each port; fewer if the limit of file descriptors requires it.";
    max_connections_per_address: u32 = 1024, Count(1..=1_000_000),
        "Open connections of each port from one address.";
    max_calls_per_address: u32 = 2048, Count(1..=1_000_000),
        "Open calls and streams from one address, on both ports; four times as many are allowed in all.";
    max_inflight_bytes: usize = 256 * MIB, Bytes(64 * KIB..=1024 * 1024 * MIB),
        "Memory for the messages of requests that are being received or served; not below `max_message_bytes`. Beyond it requests are refused.";
    max_calls_per_second: u32 = 0, Count(0..=1_000_000),
        "Calls that one client may start in a second, on both ports; 0 for no limit. A client is an authenticated identity, which may have a limit of its own, or else an address.";
    max_event_streams: u32 = 1024, Count(1..=1_000_000),
        "Open streams of training events in all.";
    max_event_streams_per_client: u32 = 128, Count(1..=1_000_000),
        "Open streams of training events of one client.";
    stall_timeout: Duration = Duration::from_secs(30), Duration(SECOND..=HOUR),
        "Time without progress after which an unfinished request, a response that its client does not read, or a connection without a request is ended.";
    ready_file: Option<PathBuf> = None, OptionalPath,
        "File that the server writes, with its addresses, when it is ready.";
    tensorboard: Location = Location::InDataDir, Location,
        "Directory of TensorBoard event files, with one subdirectory for each training."
        ("`on`: `runs` in `data_dir`");
    data_roots: Vec<PathBuf> = Vec::new(), Paths,
        "Directories under which datasets may be read; never the server's own files in `data_dir`."
        ("on loopback addresses the working directory, the home directory, the temporary directory, `/data`, `/mnt`, `/media` and `/srv`, or with `auth` none; otherwise required");
    weights_roots: Vec<PathBuf> = Vec::new(), Paths,
        "Directories under which initial weights may be read; never the server's own files in `data_dir`."
        ("as for `data_roots`");
    starter: bool = false, Switch,
        "Register the built-in face model as version 1 of `models/age` and make it live if that model has no version yet.";
    device: Device = Device::Auto, Device,
        "Compute device; `auto` selects the first GPU, or the CPU if there are no GPUs.";
    precision: Precision = Precision::Auto, Precision,
        "Precision of predictions; `auto` selects f16 or bf16 where the device is fast in it, else f32 with large filters in f16 (`f16-weights`), unless that changes the ages of drawn faces by more than 0.1 years on average.";
    threads: u32 = 0, Count(0..=1024),
        "CPU threads of the model; 0 for all.";
    max_message_bytes: usize = 16 * MIB, Bytes(64 * KIB..=1024 * MIB),
        "Size limit of a request.";
    max_image_bytes: usize = 16 * MIB, Bytes(KIB..=1024 * MIB),
        "Size limit of an encoded image.";
    max_image_pixels: u64 = 50_000_000, Pixels(1024..=1_000_000_000),
        "Limit on the pixels of an image, checked before decoding.";
    max_image_dimension: u32 = 16_384, Count(32..=65_535),
        "Limit on width and height of an image in pixels, checked before decoding.";
    max_images_per_request: u32 = 64, Count(1..=10_000),
        "Limit on the images of one Predict request; not above `max_queued_images`.";
    max_queued_images: u32 = 256, Count(1..=1_000_000),
        "Images that may wait for the model before requests are refused.";
    max_batch: u32 = 32, Count(1..=4096),
        "Limit on the images of one forward pass; not above `max_queued_images`.";
    max_loaded_models: u32 = 3, Count(2..=1000),
        "Model versions in memory, about 70 MB each; includes the live version and one that is being promoted. Loading another version evicts the least recently used one.";
    response_cache_bytes: usize = 0, Bytes(0..=64 * 1024 * MIB),
        "Memory limit of cached predictions, keyed by image content and model version; 0 disables the cache.";
    decode_threads: u32 = 0, Count(0..=1024),
        "Threads that decode images; 0 for one per core.";
    max_queued_trainings: u32 = 100, Count(1..=100_000),
        "Trainings that may wait for the device before requests are refused.";
    uploads: bool = true, Switch,
        "Accept archives of images on the HTTP port, which become datasets in `data_dir`.";
    max_upload_bytes: usize = 8 * 1024 * MIB, Bytes(KIB..=1024 * 1024 * MIB),
        "Size limit of an uploaded archive.";
    max_unpacked_bytes: usize = 32 * 1024 * MIB, Bytes(KIB..=16 * 1024 * 1024 * MIB),
        "Size limit of the unpacked files of an archive.";
    max_archive_entries: u32 = 1_000_000, Count(1..=100_000_000),
        "Limit on the entries of an archive, directories included.";
    upload_expiry: Duration = DAY, Duration(SECOND..=MONTH),
        "Idle time after which an unfinished upload is deleted.";
    min_free_disk: usize = 1024 * MIB, Bytes(0..=1024 * 1024 * MIB),
        "Free disk space of `data_dir` below which uploads, new datasets and new trainings are refused, and the running training is paused until there is room again; 0 disables the check.";
    max_dataset_bytes: usize = 0, Bytes(0..=1024 * 1024 * 1024 * MIB),
        "Size limit of all uploaded datasets together; 0 for no limit.";
    max_datasets: u32 = 10_000, Count(1..=1_000_000),
        "Named datasets that may exist.";
    max_stored_trainings: u32 = 100_000, Count(1..=10_000_000),
        "Trainings that may exist, ended ones included.";
    quarantine_expiry: Duration = MONTH, Duration(HOUR..=Duration::from_secs(3650 * 24 * 3600)),
        "Time after which files are deleted that the server found in `data_dir` at its start without an entry in the database, and moved to `quarantine`.";
    scrub_interval: Duration = Duration::from_secs(7 * 24 * 3600), Duration(Duration::ZERO..=Duration::from_secs(3650 * 24 * 3600)),
        "Time in which the files of all model versions and checkpoints are verified once, in the background at the lowest priority; `0s` disables it.";
    training_expiry: Duration = Duration::ZERO, Duration(Duration::ZERO..=Duration::from_secs(3650 * 24 * 3600)),
        "Time after the end of a training after which it is deleted with its events and checkpoints; model versions stay. `0s` keeps trainings.";
    event_expiry: Duration = Duration::ZERO, Duration(Duration::ZERO..=Duration::from_secs(3650 * 24 * 3600)),
        "Time after the end of a training after which its events are deleted, except the last one, and with them its curves; its metrics stay. `0s` keeps events.";
    alias_event_expiry: Duration = Duration::ZERO, Duration(Duration::ZERO..=Duration::from_secs(3650 * 24 * 3600)),
        "Age at which entries of the history of aliases are deleted, except the last 100 of each model; `0s` keeps them.";
    request_id_expiry: Duration = MONTH, Duration(Duration::ZERO..=Duration::from_secs(3650 * 24 * 3600)),
        "Age at which the request id of a training is forgotten, so that a repeated request starts another training; `0s` keeps them.";
    heartbeat_interval: Duration = Duration::from_secs(15), Duration(Duration::from_millis(100)..=Duration::from_secs(600)),
        "Interval of heartbeats on an idle event stream, unless its client requests another.";
    worker_launcher: Vec<String> = Vec::new(), Words,
        "Command in front of `visage worker`, such as `taskset -c 4-7` or `srun -n 4 --input=0 -K1`; it must pass standard input and output through. If it starts several processes, they share a training whose spec has `shards`. Use `worker_nice` for niceness.";
    worker_threads: u32 = 0, Count(0..=1024),
        "CPU threads of a training; 0 for as many as `threads`.";
    worker_processes: u32 = 1, Count(1..=64),
        "Processes on this machine that share a training on the CPU whose spec has `shards`: the largest power of two up to this number and the shards. The result does not depend on it. Each process computes on one thread.";
    rank_timeout: Duration = Duration::from_secs(60), Duration(SECOND..=HOUR),
        "Longest wait of one process of a training for another; then all end, and the training continues from its last full checkpoint.";
    worker_nice: u32 = 10, Count(0..=20),
        "Niceness of training processes, 0 to 19; 20 selects the idle scheduling policy, which affects predictions least. With 10, a training gets about a tenth of a busy CPU.";
    worker_silence_timeout: Duration = Duration::from_secs(15), Duration(Duration::from_secs(2)..=DAY),
        "Time without a heartbeat after which a training's process is killed.";
    worker_stall_timeout: Duration = Duration::from_secs(600), Duration(Duration::from_secs(2)..=DAY),
        "Time without progress after which a training's process is killed, although it sends heartbeats.";
    max_restarts: u32 = 3, Count(0..=1000),
        "Consecutive starts of a training that may end without a new resume point before it fails, unless its spec sets another limit.";
    shutdown_grace: Duration = Duration::from_secs(10), Duration(SECOND..=HOUR),
        "Time limit for requests and trainings to finish when the server shuts down.";
    log_level: LogLevel = LogLevel::Info, LogLevel,
        "Least severe level that is logged.";
    log_format: LogFormat = LogFormat::Auto, LogFormat,
        "Format of log lines; `auto` is text on a terminal and JSON elsewhere.";
    otlp_endpoint: Option<String> = None, Endpoint,
        "Collector that receives traces over OTLP/gRPC, such as https://collector:4317; without it there are no traces. The system's authorities, or those of the file `SSL_CERT_FILE`, must have signed its certificate. Its headers, such as a key, come from `OTEL_EXPORTER_OTLP_HEADERS`.";
    trace_sample_ratio: f64 = 0.01, Share,
        "Share of requests that are traced, unless the client's `traceparent` decides.";
}
