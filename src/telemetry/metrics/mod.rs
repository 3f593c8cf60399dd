//! Every metric of Visage: its name, its meaning, and the function that records it.
//!
//! - [`families`]: the declarations, in the order of the reference table. `family`: their types.
//! - `labels`: the values of labels.
//! - `rpc`, `prediction`, `training`, `model`, `process`, `traces`: one function for each recorded
//!   event. Other modules call these; only `visage top`, which reads a page of metrics, uses names,
//!   from [`families`].
//! - `series`: the series of a family in the current recorder.
//! - `markdown`: the reference table, generated from the declarations.
//!
//! Rules, enforced by tests:
//!
//! - Names start with `visage_` (except the `process_` ones, which Prometheus defines), contain
//!   their base unit, and end in `_total` exactly if they are counters.
//! - Labels are bounded. Most have an enum; open labels (a method, a model, a version) are bounded
//!   by the code that sets them. A training, a request or a user is never a label.
//! - A series whose labels are all enums exists from the start with the value 0, so that its first
//!   increment is visible as a rate. The same holds for success and server errors of each RPC
//!   method and HTTP route; `deploy/prometheus/rules.yml` computes rates from them.
//! - A gauge set to NaN has no value, and the exporter omits it. A series ends this way because
//!   the recorder cannot delete one.

pub(crate) mod families;
mod family;
mod labels;
mod markdown;
mod model;
mod prediction;
mod process;
mod rpc;
mod series;
mod traces;
mod training;

#[cfg(test)]
mod tests;

pub use self::{families::FAMILIES, markdown::markdown_table};
pub(crate) use self::{
    family::{Family, Kind},
    labels::{
        CacheResult, ConnectionRefusal, ImageOutcome, Port, RejectionReason, RpcCode, SkipReason,
        SpanLoss, StopReason, TrainingPhase, TrainingState,
    },
    model::{artifacts_verified, live_model_changed, model_loaded, model_versions},
    prediction::{
        batch_computed, cache_looked_up, faces_found, image_decoded, image_dequeued,
        image_finished, prediction_queue_depth, prediction_rejected,
    },
    process::{build_info, disk_free, process_observed},
    rpc::{
        certificate_expiry, connection_closed, connection_opened, connection_refused,
        http_finished, http_known, rpc_finished, rpc_known, rpc_started,
    },
    series::describe,
    traces::{trace_spans_lost, trace_spans_sent},
    training::{
        EpochReport, epoch_finished, training_finished, training_halted, training_images,
        training_images_skipped, training_phase, training_queue_length, training_speed,
        training_started, training_worker_restarted, trainings_in_state,
    },
};
