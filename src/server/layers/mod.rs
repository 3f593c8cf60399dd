//! The layers that every call passes, from the outside: addresses behind proxies, host and origin,
//! CORS, limits, rates, metrics and traces, deadlines. `guards` of the server orders them.
//! `headers` has the headers of all HTTP responses, `refused` the responses to refused gRPC
//! requests.

pub(super) mod call_limits;
mod cors;
mod deadline;
mod headers;
pub(super) mod origin;
pub(super) mod proxies;
pub(super) mod rate;
mod refused;
mod request_body;
mod rpc_metrics;
#[cfg(test)]
mod tests;

pub(super) use self::{
    call_limits::{CallLimits, Options as CallLimitOptions},
    cors::cors,
    deadline::DeadlineLayer,
    headers::add_headers,
    origin::Allowed,
    proxies::TrustedProxies,
    rate::{Denials, Failures, Rates},
    refused::{grpc_response, is_grpc, require_grpc},
    rpc_metrics::RpcMetricsLayer,
};
