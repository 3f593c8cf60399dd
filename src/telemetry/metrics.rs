//! Every metric of Visage, in one file: what it is called, what it means, and the function that records it.
//!
//! The rest of the program calls functions such as [`image_finished`] and never sees a metric's name. In return a name,
//! a label or a unit can only change here, where [`markdown_table`] turns the same declarations into the table of the README.
//!
//! Rules that the tests keep:
//!
//! - Names start with `visage_` (except the `process_` ones, whose names Prometheus fixes), carry their base unit, and end in
//!   `_total` exactly if they are counters.
//! - Labels are bounded. Most have an enum here; the open ones (an RPC's method, a model, a version) are bounded by whoever sets
//!   them. A training, a request or a user is never a label.
//! - A series whose labels are all enums exists from the start, at 0, so that the first increment shows up as a rate. Of each RPC method and HTTP route,
//!   the series of success and of the server's own faults do so too; `deploy/prometheus/rules.yml` computes rates of them.
//! - A gauge set to NaN has no value now, and the exporter leaves it out. That is how a series ends: the recorder beneath
//!   cannot delete one.

use std::sync::Arc;
use std::time::Duration;

use ::metrics::{Key, Level, Metadata, SharedString};

pub use super::family::{Family, Kind, Unit};
use super::family::{Label, Start};
pub use super::labels::{
    CacheResult, ImageOutcome, RejectionReason, RpcCode, SkipReason, SpanLoss, Split, StopReason,
    TrainingPhase, TrainingState,
};

/// From a call that only reads memory to one that waits for several predictions; seconds.
const REQUEST_SECONDS: &[f64] = &[
    0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];
/// As for a request, and finer below: a small image decodes, and a GPU computes, in less than a millisecond; seconds.
const COMPUTE_SECONDS: &[f64] = &[
    0.0001, 0.0002, 0.0003, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05,
    0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];
/// Reading, checking and warming up a model; seconds.
const LOAD_SECONDS: &[f64] = &[0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0];
/// Faces in an image, up to the most that are told.
const FACES: &[f64] = &[0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0];
/// Images computed together.
const BATCH_IMAGES: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0];

const ZERO: Kind = Kind::Gauge(Start::Zero);
const ABSENT: Kind = Kind::Gauge(Start::Absent);

/// Declares the metrics and the list of all of them, so that none can be left out of the list.
macro_rules! families {
    ($($family:ident: $kind:expr, $unit:ident, $name:literal, [$($label:expr),*], $help:literal;)+) => {
        $(pub(crate) static $family: Family = Family {
            name: $name,
            kind: $kind,
            unit: Unit::$unit,
            labels: &[$($label),*],
            help: $help,
        };)+

        /// All metrics, in the order of the README.
        pub static FAMILIES: &[&Family] = &[$(&$family),+];
    };
}

families! {
    RPC_REQUESTS: Kind::Counter, Count, "visage_rpc_requests_total",
        [Label::open("method"), Label::one_of("code", RpcCode::VALUES)],
        "gRPC calls that ended, by method and status code; a stream counts once, when it ends.";
    RPC_DURATION: Kind::Histogram(REQUEST_SECONDS), Seconds, "visage_rpc_duration_seconds",
        [Label::open("method")],
        "Time from a gRPC call's headers to its status; for a stream, its whole life.";
    RPC_IN_FLIGHT: ZERO, Count, "visage_rpc_in_flight", [Label::open("method")],
        "gRPC calls that have begun and not ended.";

    HTTP_REQUESTS: Kind::Counter, Count, "visage_http_requests_total",
        [Label::open("route"), Label::one_of("code", RpcCode::VALUES)],
        "HTTP requests under /v2 and /datasets that ended, by path and by the status code that the same call over gRPC ends with.";
    HTTP_DURATION: Kind::Histogram(REQUEST_SECONDS), Seconds, "visage_http_duration_seconds",
        [Label::open("route")],
        "Time from the headers of an HTTP request under /v2 or /datasets to its answer.";

    PREDICT_IMAGES: Kind::Counter, Count, "visage_predict_images_total",
        [Label::one_of("outcome", ImageOutcome::VALUES)],
        "Images sent for prediction, by how it ended.";
    PREDICT_REJECTIONS: Kind::Counter, Count, "visage_predict_rejections_total",
        [Label::one_of("reason", RejectionReason::VALUES)],
        "Prediction work turned away without being computed, by reason.";
    PREDICT_DECODE: Kind::Histogram(COMPUTE_SECONDS), Seconds, "visage_predict_decode_seconds", [],
        "Time to decode, orient and resize one image.";
    PREDICT_DETECTION: Kind::Histogram(COMPUTE_SECONDS), Seconds, "visage_predict_detection_seconds", [],
        "Time to look for the faces in one decoded image, where that was asked for.";
    PREDICT_FACES: Kind::Histogram(FACES), Count, "visage_predict_faces", [],
        "Faces found in one image, where that was asked for.";
    PREDICT_QUEUE: Kind::Histogram(REQUEST_SECONDS), Seconds, "visage_predict_queue_seconds", [],
        "Time one decoded image waited for an engine.";
    PREDICT_INFERENCE: Kind::Histogram(COMPUTE_SECONDS), Seconds, "visage_predict_inference_seconds", [],
        "Time of one forward pass, whatever the size of its batch.";
    PREDICT_BATCH_SIZE: Kind::Histogram(BATCH_IMAGES), Count, "visage_predict_batch_size", [],
        "Images in one forward pass.";
    PREDICT_QUEUE_DEPTH: ZERO, Count, "visage_predict_queue_depth", [],
        "Images that were let in and are not answered yet: decoded, waiting for an engine, computed or drawn on.";

    CACHE_LOOKUPS: Kind::Counter, Count, "visage_response_cache_lookups_total",
        [Label::one_of("result", CacheResult::VALUES)],
        "Images that were looked up in the cache of answers, by whether the answer was there; none while it is off.";
    CACHE_SIZE: ZERO, Bytes, "visage_response_cache_bytes", [],
        "Memory that the answers in the cache take.";

    TRAININGS: ZERO, Count, "visage_trainings", [Label::one_of("state", TrainingState::VALUES)],
        "Trainings in the store, by state.";
    TRAINING_QUEUE_LENGTH: ZERO, Count, "visage_training_queue_length", [],
        "Trainings that wait for a device.";
    TRAINING_EPOCH: ZERO, Count, "visage_training_epoch", [],
        "Epochs finished by the running training, or by the last one if none runs.";
    TRAINING_MAX_EPOCHS: ZERO, Count, "visage_training_max_epochs", [],
        "Epochs asked of the running training, or of the last one if none runs.";
    TRAINING_LOSS: ABSENT, SquareYears, "visage_training_loss_square_years",
        [Label::one_of("split", Split::VALUES)],
        "Mean squared error of the last finished epoch in square years, whatever loss is made small.";
    TRAINING_RMSE: ABSENT, Years, "visage_training_rmse_years", [],
        "Root mean squared error on the validation split after the last finished epoch.";
    TRAINING_MAE: ABSENT, Years, "visage_training_mae_years", [],
        "Mean absolute error on the validation split after the last finished epoch.";
    TRAINING_LEARNING_RATE: ABSENT, Count, "visage_training_learning_rate", [],
        "Learning rate at the end of the last finished epoch.";
    TRAINING_SPEED: ZERO, ImagesPerSecond, "visage_training_images_per_second", [],
        "Images that the running training learns from in each second; 0 while none runs.";
    TRAINING_DATA_WAIT: ABSENT, Ratio, "visage_training_data_wait_ratio", [],
        "Share of the last finished epoch's training time that was spent waiting for decoded images, 0 to 1.";
    TRAINING_PHASE: Kind::Counter, Seconds, "visage_training_phase_seconds_total",
        [Label::one_of("phase", TrainingPhase::VALUES)],
        "Time that trainings spent, by what they spent it on.";
    TRAINING_IMAGES: Kind::Counter, Count, "visage_training_images_total", [],
        "Images learned from, once for each epoch.";
    TRAINING_SKIPPED_IMAGES: Kind::Counter, Count, "visage_training_skipped_images_total",
        [Label::one_of("reason", SkipReason::VALUES)],
        "Images left out of trainings, by reason.";
    TRAININGS_FINISHED: Kind::Counter, Count, "visage_trainings_finished_total",
        [Label::one_of("stop_reason", StopReason::VALUES)],
        "Trainings that ended, by the reason of their end.";
    TRAINING_WORKER_RESTARTS: Kind::Counter, Count, "visage_training_worker_restarts_total", [],
        "Trainings that were put back into the queue because their process died or the server ended while they ran.";

    LIVE_MODEL: ABSENT, Count, "visage_live_model_info",
        [Label::open("model"), Label::open("version")],
        "1 for each model version that is served by default; a version that is replaced disappears.";
    MODEL_VERSIONS: ZERO, Count, "visage_model_versions", [],
        "Registered model versions, over all models.";
    MODEL_LOAD: Kind::Histogram(LOAD_SECONDS), Seconds, "visage_model_load_seconds", [],
        "Time to read, check and warm up a model before it serves.";

    TRACE_SPANS: Kind::Counter, Count, "visage_trace_spans_total", [],
        "Spans that the collector of traces took; 0 without `otlp_endpoint`.";
    TRACE_SPANS_LOST: Kind::Counter, Count, "visage_trace_spans_lost_total",
        [Label::one_of("reason", SpanLoss::VALUES)],
        "Spans that were dropped because the queue was full or the collector did not take them, by reason.";

    BUILD: ABSENT, Count, "visage_build_info",
        [Label::open("version"), Label::open("libtorch"), Label::open("device")],
        "1, with the versions of Visage and libtorch and the device that serves.";
    PROCESS_START: ABSENT, Seconds, "process_start_time_seconds", [],
        "Start of the process, in seconds since 1970.";
    PROCESS_CPU: Kind::Counter, Seconds, "process_cpu_seconds_total", [],
        "Processor time used by the server itself, user and system; its workers are not in it.";
    PROCESS_RESIDENT: ABSENT, Bytes, "process_resident_memory_bytes", [],
        "Memory that the process holds in RAM.";
    PROCESS_VIRTUAL: ABSENT, Bytes, "process_virtual_memory_bytes", [],
        "Address space that the process has reserved.";
    PROCESS_VIRTUAL_MAX: ABSENT, Bytes, "process_virtual_memory_max_bytes", [],
        "Limit on the address space; absent if there is none.";
    PROCESS_OPEN_FILES: ABSENT, Count, "process_open_fds", [],
        "Open file descriptors.";
    PROCESS_MAX_FILES: ABSENT, Count, "process_max_fds", [],
        "Limit on open file descriptors; absent if there is none.";
    PROCESS_THREADS: ABSENT, Count, "process_threads", [],
        "Threads of the process.";
}

/// Tells the current recorder what every metric means, and creates the series that are known beforehand.
pub fn describe() {
    for family in FAMILIES {
        ::metrics::with_recorder(|recorder| {
            let (name, help) = (family.name.into(), family.help.into());
            match family.kind {
                Kind::Counter => recorder.describe_counter(name, None, help),
                Kind::Gauge(_) => recorder.describe_gauge(name, None, help),
                Kind::Histogram(_) => recorder.describe_histogram(name, None, help),
            }
        });
        for values in known_label_values(family) {
            match family.kind {
                Kind::Counter => counter(family, &values).absolute(0),
                Kind::Gauge(Start::Zero) => gauge(family, &values).set(0.0),
                Kind::Gauge(Start::Absent) => gauge(family, &values).set(f64::NAN),
                // Registering a histogram is enough: it is exported with empty buckets.
                Kind::Histogram(_) => drop(histogram(family, &values)),
            }
        }
    }
}

/// The table of all metrics for the README, in Markdown, with a line end after each row.
pub fn markdown_table() -> String {
    let mut table = String::from("| Name | Type | Labels | Meaning |\n|---|---|---|---|\n");
    for family in FAMILIES {
        let labels: Vec<String> = family
            .labels
            .iter()
            .map(|label| match label.values {
                [] => format!("`{}`", label.key),
                values => format!("`{}`: {}", label.key, values.join(", ")),
            })
            .collect();
        table.push_str(&format!(
            "| `{}` | {} | {} | {} |\n",
            family.name,
            family.kind.as_str(),
            labels.join("; "),
            family.help
        ));
    }
    table
}

/// The codes whose series of a method or route exist before its first call: success, and the faults of the server, so that an alert sees the first one.
const KNOWN_CODES: [RpcCode; 4] = [
    RpcCode::Ok,
    RpcCode::Internal,
    RpcCode::Unknown,
    RpcCode::DataLoss,
];

/// Makes the series of a method exist before its first call.
pub(super) fn rpc_known(method: &Arc<str>) {
    for code in KNOWN_CODES {
        counter(&RPC_REQUESTS, &[shared(method), code.as_str().into()]).absolute(0);
    }
    drop(histogram(&RPC_DURATION, &[shared(method)]));
    gauge(&RPC_IN_FLIGHT, &[shared(method)]).increment(0.0);
}

/// A gRPC call began. Each is followed by one [`rpc_finished`].
pub(super) fn rpc_started(method: &Arc<str>) {
    gauge(&RPC_IN_FLIGHT, &[shared(method)]).increment(1.0);
}

/// A gRPC call ended.
pub(super) fn rpc_finished(method: &Arc<str>, code: RpcCode, elapsed: Duration) {
    gauge(&RPC_IN_FLIGHT, &[shared(method)]).decrement(1.0);
    counter(&RPC_REQUESTS, &[shared(method), code.as_str().into()]).increment(1);
    histogram(&RPC_DURATION, &[shared(method)]).record(elapsed);
}

/// Makes the series of an HTTP route exist before its first request.
pub fn http_known(route: &'static str) {
    for code in KNOWN_CODES {
        counter(&HTTP_REQUESTS, &[route.into(), code.as_str().into()]).absolute(0);
    }
    drop(histogram(&HTTP_DURATION, &[route.into()]));
}

/// An HTTP request ended.
pub fn http_finished(route: &'static str, code: RpcCode, elapsed: Duration) {
    counter(&HTTP_REQUESTS, &[route.into(), code.as_str().into()]).increment(1);
    histogram(&HTTP_DURATION, &[route.into()]).record(elapsed);
}

/// The prediction for one image ended, in whatever way.
pub fn image_finished(outcome: ImageOutcome) {
    counter(&PREDICT_IMAGES, &[outcome.as_str().into()]).increment(1);
}

/// The collector took so many spans.
pub(super) fn trace_spans_sent(count: u64) {
    counter(&TRACE_SPANS, &[]).increment(count);
}

/// So many spans were dropped.
pub(super) fn trace_spans_lost(reason: SpanLoss, count: u64) {
    counter(&TRACE_SPANS_LOST, &[reason.as_str().into()]).increment(count);
}

/// One piece of prediction work was turned away. The images in it are counted by [`image_finished`] as well.
pub fn prediction_rejected(reason: RejectionReason) {
    counter(&PREDICT_REJECTIONS, &[reason.as_str().into()]).increment(1);
}

/// One image for prediction was decoded, oriented and resized.
pub fn image_decoded(elapsed: Duration) {
    histogram(&PREDICT_DECODE, &[]).record(elapsed);
}

/// The faces of one image were looked for, and so many found.
pub fn faces_found(faces: usize, elapsed: Duration) {
    histogram(&PREDICT_FACES, &[]).record(faces as f64);
    histogram(&PREDICT_DETECTION, &[]).record(elapsed);
}

/// One image left the queue for an engine after it had waited so long.
pub fn image_dequeued(waited: Duration) {
    histogram(&PREDICT_QUEUE, &[]).record(waited);
}

/// One forward pass over `images` images is done.
pub fn batch_computed(images: usize, elapsed: Duration) {
    histogram(&PREDICT_BATCH_SIZE, &[]).record(images as f64);
    histogram(&PREDICT_INFERENCE, &[]).record(elapsed);
}

/// One image was looked up in the cache of answers, which now takes so many bytes.
pub fn cache_looked_up(result: CacheResult, bytes: u64) {
    counter(&CACHE_LOOKUPS, &[result.as_str().into()]).increment(1);
    gauge(&CACHE_SIZE, &[]).set(bytes as f64);
}

/// This many images wait for an engine now.
pub fn prediction_queue_depth(images: usize) {
    gauge(&PREDICT_QUEUE_DEPTH, &[]).set(images as f64);
}

/// The store holds this many trainings in this state. Called for each state at the start, and whenever counts are read again.
pub fn trainings_in_state(state: TrainingState, trainings: u64) {
    gauge(&TRAININGS, &[state.as_str().into()]).set(trainings as f64);
}

/// One training went from a state to another: `None` before it is created and after it is deleted.
pub fn training_moved(from: Option<TrainingState>, to: Option<TrainingState>) {
    if let Some(state) = from {
        gauge(&TRAININGS, &[state.as_str().into()]).decrement(1.0);
    }
    if let Some(state) = to {
        gauge(&TRAININGS, &[state.as_str().into()]).increment(1.0);
    }
}

/// This many trainings wait for a device now.
pub fn training_queue_length(trainings: usize) {
    gauge(&TRAINING_QUEUE_LENGTH, &[]).set(trainings as f64);
}

/// A training began, or went on after `finished_epochs`. The errors of the one before it disappear.
pub fn training_began(finished_epochs: u32, max_epochs: u32) {
    gauge(&TRAINING_EPOCH, &[]).set(finished_epochs);
    gauge(&TRAINING_MAX_EPOCHS, &[]).set(max_epochs);
    set_training_errors(None, None, None, None);
    gauge(&TRAINING_LEARNING_RATE, &[]).set(f64::NAN);
}

/// What a training reports after an epoch. Errors are over the whole split.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EpochReport {
    /// The number of the epoch, from 1.
    pub epoch: u32,
    /// The loss on the training split, in square years for the mean squared error.
    pub training_loss: f64,
    /// The loss on the validation split, if there is one; unit as above.
    pub validation_loss: Option<f64>,
    /// The root mean squared error on the validation split, in years.
    pub rmse_years: Option<f64>,
    /// The mean absolute error on the validation split, in years.
    pub mae_years: Option<f64>,
    /// The learning rate at the end of the epoch.
    pub learning_rate: f64,
    /// Images learned from in each second, over the epoch.
    pub images_per_second: f64,
    /// Share of the time that was spent waiting for decoded images, 0 to 1.
    pub data_wait_share: f64,
}

/// The running training finished an epoch.
pub fn epoch_finished(report: &EpochReport) {
    gauge(&TRAINING_EPOCH, &[]).set(report.epoch);
    set_training_errors(
        Some(report.training_loss),
        report.validation_loss,
        report.rmse_years,
        report.mae_years,
    );
    gauge(&TRAINING_LEARNING_RATE, &[]).set(report.learning_rate);
    gauge(&TRAINING_DATA_WAIT, &[]).set(report.data_wait_share);
    training_speed(report.images_per_second);
}

/// The running training learns from this many images in each second.
pub fn training_speed(images_per_second: f64) {
    gauge(&TRAINING_SPEED, &[]).set(images_per_second);
}

/// The worker of the running training stopped, be it for a pause, an end or an accident: nothing is learned now. The errors of the
/// last epoch stay until the next training begins, so that a training shorter than a scrape interval is still seen.
pub fn training_halted() {
    training_speed(0.0);
}

/// A training spent time on a phase.
pub fn training_phase(phase: TrainingPhase, elapsed: Duration) {
    counter(&TRAINING_PHASE, &[phase.as_str().into()]).increment(microseconds(elapsed));
}

/// A training learned from this many images.
pub fn training_images(images: u64) {
    counter(&TRAINING_IMAGES, &[]).increment(images);
}

/// A training leaves this many images out.
pub fn training_images_skipped(reason: SkipReason, images: u64) {
    counter(&TRAINING_SKIPPED_IMAGES, &[reason.as_str().into()]).increment(images);
}

/// A training reached its last state.
pub fn training_finished(reason: StopReason) {
    counter(&TRAININGS_FINISHED, &[reason.as_str().into()]).increment(1);
}

/// A worker process was started in the place of one that died.
pub fn training_worker_restarted() {
    counter(&TRAINING_WORKER_RESTARTS, &[]).increment(1);
}

/// Another version of `model` serves by default; `None` where there was none before or is none now.
pub fn live_model_changed(model: &str, before: Option<u64>, now: Option<u64>) {
    let series = |version: u64| {
        gauge(
            &LIVE_MODEL,
            &[model.to_owned().into(), version.to_string().into()],
        )
    };
    if let Some(version) = before {
        series(version).set(f64::NAN);
    }
    if let Some(version) = now {
        series(version).set(1.0);
    }
}

/// This many model versions are registered.
pub fn model_versions(versions: u64) {
    gauge(&MODEL_VERSIONS, &[]).set(versions as f64);
}

/// A model was read, checked and warmed up.
pub fn model_loaded(elapsed: Duration) {
    histogram(&MODEL_LOAD, &[]).record(elapsed);
}

/// States once, at the start, what runs: for example `"0.1.0"`, `"2.11.0"` and `"cpu"`.
pub fn build_info(version: &str, libtorch: &str, device: &str) {
    let values = [version, libtorch, device].map(|value| SharedString::from(value.to_owned()));
    gauge(&BUILD, &values).set(1.0);
}

/// Reads what the operating system says of this process. What it does not say stays absent.
pub(super) fn process_observed() {
    let now = metrics_process::collector::collect();
    if let Some(seconds) = now.cpu_seconds_total {
        counter(&PROCESS_CPU, &[])
            .absolute(microseconds(Duration::from_secs_f64(seconds.max(0.0))));
    }
    let set = |family: &'static Family, value: Option<u64>| {
        gauge(family, &[]).set(value.map_or(f64::NAN, |value| value as f64));
    };
    set(&PROCESS_START, now.start_time_seconds);
    set(&PROCESS_RESIDENT, now.resident_memory_bytes);
    set(&PROCESS_VIRTUAL, now.virtual_memory_bytes);
    set(&PROCESS_OPEN_FILES, now.open_fds);
    set(&PROCESS_THREADS, now.threads);
    // The collector says 0 for "no limit", which a graph of used against allowed would read as "full".
    set(
        &PROCESS_VIRTUAL_MAX,
        now.virtual_memory_max_bytes.filter(|&limit| limit > 0),
    );
    set(&PROCESS_MAX_FILES, now.max_fds.filter(|&limit| limit > 0));
}

fn set_training_errors(
    training_loss: Option<f64>,
    validation_loss: Option<f64>,
    rmse_years: Option<f64>,
    mae_years: Option<f64>,
) {
    let set = |family: &'static Family, values: &[SharedString], value: Option<f64>| {
        gauge(family, values).set(value.unwrap_or(f64::NAN));
    };
    set(
        &TRAINING_LOSS,
        &[Split::Train.as_str().into()],
        training_loss,
    );
    set(
        &TRAINING_LOSS,
        &[Split::Validation.as_str().into()],
        validation_loss,
    );
    set(&TRAINING_RMSE, &[], rmse_years);
    set(&TRAINING_MAE, &[], mae_years);
}

static METADATA: Metadata<'static> =
    Metadata::new(module_path!(), Level::INFO, Some(module_path!()));

fn counter(family: &'static Family, values: &[SharedString]) -> ::metrics::Counter {
    debug_assert_eq!(family.kind, Kind::Counter, "{}", family.name);
    let key = series_key(family, values);
    ::metrics::with_recorder(|recorder| recorder.register_counter(&key, &METADATA))
}

fn gauge(family: &'static Family, values: &[SharedString]) -> ::metrics::Gauge {
    debug_assert!(matches!(family.kind, Kind::Gauge(_)), "{}", family.name);
    let key = series_key(family, values);
    ::metrics::with_recorder(|recorder| recorder.register_gauge(&key, &METADATA))
}

fn histogram(family: &'static Family, values: &[SharedString]) -> ::metrics::Histogram {
    debug_assert!(matches!(family.kind, Kind::Histogram(_)), "{}", family.name);
    let key = series_key(family, values);
    ::metrics::with_recorder(|recorder| recorder.register_histogram(&key, &METADATA))
}

/// `values` are in the order of the family's labels, one for each.
fn series_key(family: &'static Family, values: &[SharedString]) -> Key {
    debug_assert_eq!(family.labels.len(), values.len(), "{}", family.name);
    let labels: Vec<::metrics::Label> = family
        .labels
        .iter()
        .zip(values)
        .map(|(label, value)| ::metrics::Label::new(label.key, value.clone()))
        .collect();
    Key::from_parts(family.name, labels)
}

/// Every combination of a family's label values: one empty combination without labels, none if a label is open.
fn known_label_values(family: &Family) -> Vec<Vec<SharedString>> {
    let mut combinations = vec![Vec::new()];
    for label in family.labels {
        combinations = combinations
            .iter()
            .flat_map(|head: &Vec<SharedString>| {
                label.values.iter().map(move |&value| {
                    let mut longer = head.clone();
                    longer.push(value.into());
                    longer
                })
            })
            .collect();
    }
    combinations
}

fn shared(method: &Arc<str>) -> SharedString {
    SharedString::from(Arc::clone(method))
}

fn microseconds(elapsed: Duration) -> u64 {
    u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_and_valid_for_prometheus() {
        let mut seen = HashSet::new();
        for family in FAMILIES {
            let name = family.name;
            assert!(seen.insert(name), "{name} is declared twice");
            assert!(
                name.bytes()
                    .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_')),
                "{name}"
            );
            assert!(
                name.starts_with("visage_") || name.starts_with("process_"),
                "{name}"
            );
        }
    }

    #[test]
    fn counters_and_only_counters_end_in_total() {
        for family in FAMILIES {
            let is_counter = family.kind == Kind::Counter;
            assert_eq!(
                family.name.ends_with("_total"),
                is_counter,
                "{}",
                family.name
            );
        }
    }

    #[test]
    fn names_carry_their_unit() {
        for family in FAMILIES {
            let stem = family.name.strip_suffix("_total").unwrap_or(family.name);
            assert!(
                stem.ends_with(family.unit.suffix()),
                "{} is in {:?}",
                family.name,
                family.unit
            );
            if family.unit == Unit::Count {
                let named = ["seconds", "bytes", "years"]
                    .iter()
                    .any(|unit| stem.ends_with(unit));
                assert!(
                    !named,
                    "{} names a unit that it does not declare",
                    family.name
                );
            }
        }
    }

    #[test]
    fn every_metric_has_one_sentence_of_help() {
        for family in FAMILIES {
            assert!(
                family.help.len() > 15 && family.help.ends_with('.'),
                "{}",
                family.name
            );
            assert!(!family.help.contains(['\n', '|', '\\']), "{}", family.name);
        }
    }

    #[test]
    fn labels_are_valid_and_their_values_distinct() {
        for label in FAMILIES.iter().flat_map(|family| family.labels) {
            for word in label.values.iter().chain([&label.key]) {
                assert!(
                    word.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'_')),
                    "{word}"
                );
            }
            let distinct: HashSet<_> = label.values.iter().collect();
            assert_eq!(distinct.len(), label.values.len(), "{}", label.key);
        }
    }

    #[test]
    fn buckets_ascend_and_are_finite() {
        for family in FAMILIES {
            let Kind::Histogram(buckets) = family.kind else {
                continue;
            };
            assert!(!buckets.is_empty(), "{}", family.name);
            assert!(
                buckets.iter().all(|bound| bound.is_finite()),
                "{}",
                family.name
            );
            assert!(
                buckets.is_sorted_by(|low, high| low < high),
                "{}",
                family.name
            );
        }
    }

    #[test]
    fn enum_variants_and_label_values_agree() {
        let from_variants: Vec<_> = TrainingState::ALL
            .iter()
            .map(|state| state.as_str())
            .collect();
        assert_eq!(from_variants, TrainingState::VALUES);
        assert_eq!(RpcCode::ALL.len(), 17, "gRPC defines the codes 0 to 16");
    }

    #[test]
    fn table_has_one_row_for_each_metric() {
        let table = markdown_table();
        assert_eq!(table.lines().count(), FAMILIES.len() + 2);
        assert!(table.lines().all(|row| row.matches('|').count() == 5));
        assert!(table.contains(
            "| `visage_training_loss_square_years` | gauge | `split`: train, validation | Mean squared error of the last"
        ));
        assert!(table.contains("| `visage_rpc_in_flight` | gauge | `method` | gRPC calls that"));
    }
}
