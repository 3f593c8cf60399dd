//! The layers that every call passes, from the outside: CORS, metrics and traces, deadlines.

mod cors;
mod deadline;
mod rpc_metrics;
#[cfg(test)]
mod tests;

pub(super) use self::{cors::cors, deadline::DeadlineLayer, rpc_metrics::RpcMetricsLayer};
