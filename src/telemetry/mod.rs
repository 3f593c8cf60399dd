//! Observability: metrics, log lines and traces.
//!
//! - [`metrics`]: the declaration of every metric and the functions that record events.
//! - [`exporter`]: holds the recorded values of this process and renders them as Prometheus text.
//! - [`logging`]: log lines on stderr, as text or JSON, with a level that can change.
//! - [`traces`]: spans of sampled calls, exported over OTLP.

pub(crate) mod exporter;
pub(crate) mod logging;
pub(crate) mod metrics;
#[cfg(test)]
mod tests;
pub(crate) mod traces;
