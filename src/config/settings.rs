//! The table of settings; the file's keys, the variables, the flags and the documentation all come from it.

use std::{net::SocketAddr, ops::RangeInclusive, path::PathBuf, time::Duration};

use super::{Device, EventDirectory, LogFormat, LogLevel, Precision, ServeConfig};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 3600);
const MONTH: Duration = Duration::from_secs(30 * 24 * 3600);

/// One setting.
#[derive(Debug)]
pub struct Setting {
    /// Its key in the file, such as `max_batch`.
    pub name: &'static str,
    /// What it does, in sentences.
    pub doc: &'static str,
    /// What its default is, where a value alone does not say it.
    pub(super) default_note: Option<&'static str>,
    pub(super) field: Field,
}

impl Setting {
    /// Its environment variable, such as `VISAGE_MAX_BATCH`.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("VISAGE_{}", self.name.to_ascii_uppercase())
    }

    /// Its flag without the dashes, such as `max-batch`.
    #[must_use]
    pub fn flag(&self) -> String {
        self.name.replace('_', "-")
    }

    /// Whether its flag alone turns it on.
    #[must_use]
    pub fn is_switch(&self) -> bool {
        matches!(self.field, Field::Switch(_))
    }

    /// Whether its flag may be given several times.
    #[must_use]
    pub fn is_list(&self) -> bool {
        matches!(
            self.field,
            Field::Paths(_) | Field::Words(_) | Field::Origins(_)
        )
    }
}

/// The setting of this name.
pub(super) fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

type Get<T> = fn(&mut ServeConfig) -> &mut T;

/// Type, range and place of a setting.
#[derive(Debug)]
pub(super) enum Field {
    Path(Get<PathBuf>),
    OptionalPath(Get<Option<PathBuf>>),
    Paths(Get<Vec<PathBuf>>),
    Words(Get<Vec<String>>),
    Origins(Get<Vec<String>>),
    Address(Get<SocketAddr>),
    Count(RangeInclusive<u32>, Get<u32>),
    Pixels(RangeInclusive<u64>, Get<u64>),
    Bytes(RangeInclusive<usize>, Get<usize>),
    Duration(RangeInclusive<Duration>, Get<Duration>),
    EventDirectory(Get<EventDirectory>),
    Switch(Get<bool>),
    Device(Get<Device>),
    Precision(Get<Precision>),
    LogLevel(Get<LogLevel>),
    LogFormat(Get<LogFormat>),
    Endpoint(Get<Option<String>>),
    Share(Get<f64>),
}

const fn setting(name: &'static str, doc: &'static str, field: Field) -> Setting {
    Setting {
        name,
        doc,
        default_note: None,
        field,
    }
}

/// All settings, in the order of the documentation.
pub static SETTINGS: &[Setting] = &[
    setting(
        "data_dir",
        "Directory of the database, the checkpoints and uploaded datasets; made when it is missing.",
        Field::Path(|c| &mut c.data_dir),
    ),
    setting(
        "grpc_listen",
        "Address of the gRPC API; port 0 lets the system choose.",
        Field::Address(|c| &mut c.grpc_listen),
    ),
    setting(
        "http_listen",
        "Address of metrics, health and dashboard; port 0 lets the system choose.",
        Field::Address(|c| &mut c.http_listen),
    ),
    setting(
        "dashboard",
        "Show the dashboard on the HTTP port, and answer the whole API there as gRPC-Web, which the dashboard uses.",
        Field::Switch(|c| &mut c.dashboard),
    ),
    setting(
        "cors_origins",
        "Origins such as https://example.org whose pages may call both ports from a browser, or `*` for all; the dashboard needs none.",
        Field::Origins(|c| &mut c.cors_origins),
    ),
    setting(
        "ready_file",
        "File that the server writes, with its addresses, once it answers.",
        Field::OptionalPath(|c| &mut c.ready_file),
    ),
    Setting {
        name: "tensorboard",
        doc: "Where each training's event files for TensorBoard are written, in a directory of its id.",
        default_note: Some("`on`: to `runs` in `data_dir`"),
        field: Field::EventDirectory(|c| &mut c.tensorboard),
    },
    Setting {
        name: "data_roots",
        doc: "Directories under which datasets may be read.",
        default_note: Some("`/` when both addresses are loopback, else it must be given"),
        field: Field::Paths(|c| &mut c.data_roots),
    },
    Setting {
        name: "weights_roots",
        doc: "Directories under which initial weights may be read.",
        default_note: Some("`/` when both addresses are loopback, else it must be given"),
        field: Field::Paths(|c| &mut c.weights_roots),
    },
    setting(
        "starter",
        "Make the face model that is part of the program version 1 of `models/age`, and live, when that model has no version yet.",
        Field::Switch(|c| &mut c.starter),
    ),
    setting(
        "device",
        "What computes; `auto` takes the first GPU where there is one.",
        Field::Device(|c| &mut c.device),
    ),
    setting(
        "precision",
        "Number format of predictions; `auto` takes f16 or bf16 where the device is fast in it, else f32 with large filters in f16 (`f16-weights`), unless that changes the ages of drawn faces by more than 0.1 years on average.",
        Field::Precision(|c| &mut c.precision),
    ),
    setting(
        "threads",
        "Threads of the processor that the model uses; 0 for all.",
        Field::Count(0..=1024, |c| &mut c.threads),
    ),
    setting(
        "max_message_bytes",
        "Largest request.",
        Field::Bytes(64 * KIB..=1024 * MIB, |c| &mut c.max_message_bytes),
    ),
    setting(
        "max_image_bytes",
        "Largest encoded image.",
        Field::Bytes(KIB..=1024 * MIB, |c| &mut c.max_image_bytes),
    ),
    setting(
        "max_image_pixels",
        "Most pixels of an image, checked before it is decoded.",
        Field::Pixels(1024..=1_000_000_000, |c| &mut c.max_image_pixels),
    ),
    setting(
        "max_image_dimension",
        "Most pixels of one side of an image, checked before it is decoded.",
        Field::Count(32..=65_535, |c| &mut c.max_image_dimension),
    ),
    setting(
        "max_images_per_request",
        "Most images in one Predict call; not above `max_queued_images`.",
        Field::Count(1..=10_000, |c| &mut c.max_images_per_request),
    ),
    setting(
        "max_queued_images",
        "Images that may wait for the model before calls are refused.",
        Field::Count(1..=1_000_000, |c| &mut c.max_queued_images),
    ),
    setting(
        "max_batch",
        "Most images in one forward pass; not above `max_queued_images`.",
        Field::Count(1..=4096, |c| &mut c.max_batch),
    ),
    setting(
        "max_loaded_models",
        "Model versions that stay loaded, some 70 MB each, the live one always, and the one that becomes live beside it; another one that is asked for takes the place of the one that was not used for the longest time.",
        Field::Count(2..=1000, |c| &mut c.max_loaded_models),
    ),
    setting(
        "response_cache_bytes",
        "Most bytes of answers that are kept, by the content of the image and the version of the model, for images that are sent again; 0 for none.",
        Field::Bytes(0..=64 * 1024 * MIB, |c| &mut c.response_cache_bytes),
    ),
    setting(
        "decode_threads",
        "Threads that decode images; 0 for one per core.",
        Field::Count(0..=1024, |c| &mut c.decode_threads),
    ),
    setting(
        "max_queued_trainings",
        "Trainings that may wait for the device before calls are refused.",
        Field::Count(1..=100_000, |c| &mut c.max_queued_trainings),
    ),
    setting(
        "uploads",
        "Take archives of images on the HTTP port, of which datasets are made in `data_dir`.",
        Field::Switch(|c| &mut c.uploads),
    ),
    setting(
        "max_upload_bytes",
        "Largest archive that may be uploaded.",
        Field::Bytes(KIB..=1024 * 1024 * MIB, |c| &mut c.max_upload_bytes),
    ),
    setting(
        "max_unpacked_bytes",
        "Most bytes of an archive's files once they are unpacked.",
        Field::Bytes(KIB..=16 * 1024 * 1024 * MIB, |c| &mut c.max_unpacked_bytes),
    ),
    setting(
        "max_archive_entries",
        "Most entries of an archive, directories included.",
        Field::Count(1..=100_000_000, |c| &mut c.max_archive_entries),
    ),
    setting(
        "upload_expiry",
        "An upload to which nothing was written for this long is deleted.",
        Field::Duration(SECOND..=MONTH, |c| &mut c.upload_expiry),
    ),
    setting(
        "heartbeat_interval",
        "Longest silence of an event stream, unless its client asks for another.",
        Field::Duration(Duration::from_millis(100)..=Duration::from_secs(600), |c| {
            &mut c.heartbeat_interval
        }),
    ),
    setting(
        "worker_launcher",
        "Command in front of `visage worker`, such as `taskset -c 4-7` or `srun -n 1 -c 4`; it must hand on standard input and output. For niceness there is `worker_nice`.",
        Field::Words(|c| &mut c.worker_launcher),
    ),
    setting(
        "worker_threads",
        "Threads of the processor that a training uses; 0 for as many as `threads`.",
        Field::Count(0..=1024, |c| &mut c.worker_threads),
    ),
    setting(
        "worker_nice",
        "By how much a training gives way to predictions and everything else on the machine, as `nice` takes it: 0 for not at all, 10 for a tenth of a busy machine, 20 for only what nobody else wants, which predictions notice least.",
        Field::Count(0..=20, |c| &mut c.worker_nice),
    ),
    setting(
        "worker_silence_timeout",
        "A training's process that gives no sign of life for this long is killed.",
        Field::Duration(Duration::from_secs(2)..=DAY, |c| {
            &mut c.worker_silence_timeout
        }),
    ),
    setting(
        "worker_stall_timeout",
        "A training's process that lives but gets nothing done for this long is killed.",
        Field::Duration(Duration::from_secs(2)..=DAY, |c| {
            &mut c.worker_stall_timeout
        }),
    ),
    setting(
        "max_restarts",
        "How many starts of a training in a row may end without a new full checkpoint before it is given up, where its spec does not say.",
        Field::Count(0..=1000, |c| &mut c.max_restarts),
    ),
    setting(
        "shutdown_grace",
        "Time that calls and trainings have to end when the server shuts down.",
        Field::Duration(SECOND..=Duration::from_secs(3600), |c| {
            &mut c.shutdown_grace
        }),
    ),
    setting(
        "log_level",
        "Least severe level that is logged.",
        Field::LogLevel(|c| &mut c.log_level),
    ),
    setting(
        "log_format",
        "Shape of the log lines; `auto` is text on a terminal and JSON elsewhere.",
        Field::LogFormat(|c| &mut c.log_format),
    ),
    setting(
        "otlp_endpoint",
        "Collector that traces are sent to, over OTLP as gRPC; without it there are no traces. Headers for it, such as a key, come from `OTEL_EXPORTER_OTLP_HEADERS`.",
        Field::Endpoint(|c| &mut c.otlp_endpoint),
    ),
    setting(
        "trace_sample_ratio",
        "Share of the calls that are traced where the client's `traceparent` does not say whether its call is.",
        Field::Share(|c| &mut c.trace_sample_ratio),
    ),
];
