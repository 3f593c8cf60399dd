//! The declarations of all metrics.

use super::{
    family::{Family, Kind, Label, Start, Unit},
    labels::{
        CacheResult, ConnectionRefusal, ImageOutcome, Port, RejectionReason, RpcCode, SkipReason,
        SpanLoss, Split, StopReason, TrainingPhase, TrainingState,
    },
};

/// Buckets of a request in seconds: from a call that only reads memory to one that waits for
/// several predictions.
const REQUEST_SECONDS: &[f64] = &[
    0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];
/// As for a request, and finer below: small images decode, and GPUs compute, in less than a
/// millisecond.
const COMPUTE_SECONDS: &[f64] = &[
    0.0001, 0.0002, 0.0003, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05,
    0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];
const LOAD_SECONDS: &[f64] = &[0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0];
/// Up to the maximum number of faces in a response.
const FACES: &[f64] = &[0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0];
const BATCH_IMAGES: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0];

const ZERO: Kind = Kind::Gauge(Start::Zero);
const ABSENT: Kind = Kind::Gauge(Start::Absent);

/// Declares the metrics and the list of all of them, so that none can be missing in the list.
macro_rules! families {
    ($($family:ident: $kind:expr, $unit:ident, $name:literal, [$($label:expr),*], $help:literal;)+) => {
        $(pub(crate) static $family: Family = Family {
            name: $name,
            kind: $kind,
            unit: Unit::$unit,
            labels: &[$($label),*],
            help: $help,
        };)+

        /// All metrics, in the order of the reference table.
        pub static FAMILIES: &[&Family] = &[$(&$family),+];
    };
}

families! {
    RPC_REQUESTS: Kind::Counter, Count, "visage_rpc_requests_total",
        [Label::open("method"), Label::one_of("code", RpcCode::VALUES)],
        "Completed gRPC calls by method and status code; a stream counts once, when it ends.";
    RPC_DURATION: Kind::Histogram(REQUEST_SECONDS), Seconds, "visage_rpc_duration_seconds",
        [Label::open("method")],
        "Duration of a gRPC call from the request headers to the status; for a stream, its whole lifetime.";
    RPC_IN_FLIGHT: ZERO, Count, "visage_rpc_in_flight", [Label::open("method")],
        "gRPC calls in progress.";

    HTTP_REQUESTS: Kind::Counter, Count, "visage_http_requests_total",
        [Label::open("route"), Label::one_of("code", RpcCode::VALUES)],
        "Completed HTTP requests under /v2 and /datasets by route and by the gRPC status code of the same outcome.";
    HTTP_DURATION: Kind::Histogram(REQUEST_SECONDS), Seconds, "visage_http_duration_seconds",
        [Label::open("route")],
        "Duration of an HTTP request under /v2 or /datasets from the request headers to the response.";

    CONNECTIONS: ZERO, Count, "visage_connections", [Label::one_of("port", Port::VALUES)],
        "Open connections, by port.";
    CONNECTIONS_CLOSED: Kind::Counter, Count, "visage_connections_closed_total",
        [Label::one_of("port", Port::VALUES), Label::one_of("reason", ConnectionRefusal::VALUES)],
        "Connections that the server refused or closed because of a limit or a failed TLS handshake, by port and reason.";
    CERTIFICATE_EXPIRY: ABSENT, Seconds, "visage_tls_certificate_expiry_timestamp_seconds", [],
        "End of the validity of the certificate of `tls_cert` in seconds since the Unix epoch; absent without TLS.";

    PREDICT_IMAGES: Kind::Counter, Count, "visage_predict_images_total",
        [Label::one_of("outcome", ImageOutcome::VALUES)],
        "Images sent for prediction, by outcome.";
    PREDICT_REJECTIONS: Kind::Counter, Count, "visage_predict_rejections_total",
        [Label::one_of("reason", RejectionReason::VALUES)],
        "Predictions rejected before inference, by reason.";
    PREDICT_DECODE: Kind::Histogram(COMPUTE_SECONDS), Seconds, "visage_predict_decode_seconds", [],
        "Time to decode, orient and resize one image.";
    PREDICT_DETECTION: Kind::Histogram(COMPUTE_SECONDS), Seconds, "visage_predict_detection_seconds", [],
        "Time to detect the faces in one decoded image, where requested.";
    PREDICT_FACES: Kind::Histogram(FACES), Count, "visage_predict_faces", [],
        "Faces found in one image, where face detection was requested.";
    PREDICT_QUEUE: Kind::Histogram(REQUEST_SECONDS), Seconds, "visage_predict_queue_seconds", [],
        "Time that one decoded image waited for the engine.";
    PREDICT_INFERENCE: Kind::Histogram(COMPUTE_SECONDS), Seconds, "visage_predict_inference_seconds", [],
        "Duration of one forward pass over a batch of any size.";
    PREDICT_BATCH_SIZE: Kind::Histogram(BATCH_IMAGES), Count, "visage_predict_batch_size", [],
        "Images in one forward pass.";
    PREDICT_QUEUE_DEPTH: ZERO, Count, "visage_predict_queue_depth", [],
        "Admitted images without a response yet: being decoded, queued, in inference or being annotated.";

    CACHE_LOOKUPS: Kind::Counter, Count, "visage_response_cache_lookups_total",
        [Label::one_of("result", CacheResult::VALUES)],
        "Images looked up in the response cache, by result; stays 0 while the cache is off.";
    CACHE_SIZE: ZERO, Bytes, "visage_response_cache_bytes", [],
        "Memory used by the responses in the cache.";

    TRAININGS: ZERO, Count, "visage_trainings", [Label::one_of("state", TrainingState::VALUES)],
        "Trainings in the database, by state.";
    TRAINING_QUEUE_LENGTH: ZERO, Count, "visage_training_queue_length", [],
        "Trainings waiting for a device.";
    TRAINING_EPOCH: ZERO, Count, "visage_training_epoch", [],
        "Completed epochs of the running training, or of the last one if none is running.";
    TRAINING_MAX_EPOCHS: ZERO, Count, "visage_training_max_epochs", [],
        "Requested epochs of the running training, or of the last one if none is running.";
    TRAINING_LOSS: ABSENT, SquareYears, "visage_training_loss_square_years",
        [Label::one_of("split", Split::VALUES)],
        "Mean squared error of the last completed epoch in square years, for every loss function.";
    TRAINING_RMSE: ABSENT, Years, "visage_training_rmse_years", [],
        "Root mean squared error on the validation split after the last completed epoch.";
    TRAINING_MAE: ABSENT, Years, "visage_training_mae_years", [],
        "Mean absolute error on the validation split after the last completed epoch.";
    TRAINING_LEARNING_RATE: ABSENT, Count, "visage_training_learning_rate", [],
        "Learning rate at the end of the last completed epoch.";
    TRAINING_SPEED: ZERO, ImagesPerSecond, "visage_training_images_per_second", [],
        "Throughput of the running training; 0 while none is running.";
    TRAINING_DATA_WAIT: ABSENT, Ratio, "visage_training_data_wait_ratio", [],
        "Share of the last completed epoch's training time spent waiting for decoded images, 0 to 1.";
    TRAINING_PHASE: Kind::Counter, Seconds, "visage_training_phase_seconds_total",
        [Label::one_of("phase", TrainingPhase::VALUES)],
        "Time spent by trainings, by phase.";
    TRAINING_IMAGES: Kind::Counter, Count, "visage_training_images_total", [],
        "Images processed by trainings, counted once for each epoch.";
    TRAINING_SKIPPED_IMAGES: Kind::Counter, Count, "visage_training_skipped_images_total",
        [Label::one_of("reason", SkipReason::VALUES)],
        "Images excluded from trainings, by reason.";
    TRAININGS_FINISHED: Kind::Counter, Count, "visage_trainings_finished_total",
        [Label::one_of("stop_reason", StopReason::VALUES)],
        "Finished trainings, by stop reason.";
    TRAINING_WORKER_RESTARTS: Kind::Counter, Count, "visage_training_worker_restarts_total", [],
        "Trainings queued again because their worker process died or the server stopped while they ran.";

    LIVE_MODEL: ABSENT, Count, "visage_live_model_info",
        [Label::open("model"), Label::open("version")],
        "1 for the live version of each model; the series of a replaced version disappears.";
    MODEL_VERSIONS: ZERO, Count, "visage_model_versions", [],
        "Registered model versions of all models.";
    MODEL_LOAD: Kind::Histogram(LOAD_SECONDS), Seconds, "visage_model_load_seconds", [],
        "Time to read, verify and warm up a model before it serves.";

    ARTIFACTS_DAMAGED: ZERO, Count, "visage_artifacts_damaged", [],
        "Files of model versions and checkpoints whose bytes are damaged or missing, found by the verification in the background.";
    ARTIFACTS_VERIFIED: ABSENT, Seconds, "visage_artifacts_verified_timestamp_seconds", [],
        "End of the last verification of all files of model versions and checkpoints in seconds since the Unix epoch; absent before the first one.";

    TRACE_SPANS: Kind::Counter, Count, "visage_trace_spans_total", [],
        "Spans accepted by the trace collector; 0 without `otlp_endpoint`.";
    TRACE_SPANS_LOST: Kind::Counter, Count, "visage_trace_spans_lost_total",
        [Label::one_of("reason", SpanLoss::VALUES)],
        "Spans dropped because the queue was full or the export failed, by reason.";

    BUILD: ABSENT, Count, "visage_build_info",
        [Label::open("version"), Label::open("libtorch"), Label::open("device")],
        "1, labelled with the versions of Visage and libtorch and with the device.";
    PROCESS_START: ABSENT, Seconds, "process_start_time_seconds", [],
        "Start time of the process in seconds since the Unix epoch.";
    DISK_FREE: ABSENT, Bytes, "visage_disk_free_bytes", [],
        "Bytes that are free on the disk of the data directory.";
    PROCESS_CPU: Kind::Counter, Seconds, "process_cpu_seconds_total", [],
        "User and system CPU time of the server process, without its workers.";
    PROCESS_RESIDENT: ABSENT, Bytes, "process_resident_memory_bytes", [],
        "Resident memory of the process.";
    PROCESS_VIRTUAL: ABSENT, Bytes, "process_virtual_memory_bytes", [],
        "Virtual memory of the process.";
    PROCESS_VIRTUAL_MAX: ABSENT, Bytes, "process_virtual_memory_max_bytes", [],
        "Limit on virtual memory; absent if unlimited.";
    PROCESS_OPEN_FILES: ABSENT, Count, "process_open_fds", [],
        "Open file descriptors.";
    PROCESS_MAX_FILES: ABSENT, Count, "process_max_fds", [],
        "Limit on open file descriptors; absent if unlimited.";
    PROCESS_THREADS: ABSENT, Count, "process_threads", [],
        "Threads of the process.";
}
