//! What the person on call sees: metrics, health pages and log lines.
//!
//! - [`metrics`]: every metric's name, type, unit, labels and meaning, and one small function for each thing that is recorded.
//!   Nothing outside that file names a metric. What a declaration consists of is in `family`, the label values are in `labels`.
//! - [`exporter`]: keeps the recorded values of this process and renders them as Prometheus text.
//! - [`rpc`]: the layer around a gRPC server that counts calls, whatever service they are for.
//! - [`http`]: the HTTP port with `/metrics`, `/livez` and `/readyz`.
//! - [`logging`]: log lines on stderr, for a person or as JSON, with a level that can change.
//! - [`traces`]: where the time of single calls went, sent to a collector over OTLP.
//!
//! This module depends on none of the others, so that all of them may use it.

pub(crate) mod exporter;
pub(crate) mod http;
pub(crate) mod logging;
pub mod metrics;
pub(crate) mod rpc;
pub(crate) mod traces;
