//! The layers that every call passes, from the outside: addresses behind proxies, host and origin,
//! CORS, identity and role (module `auth`), limits, rates, metrics and traces, deadlines. `headers`
//! has the headers of all HTTP responses.

mod call_limits;
mod cors;
mod deadline;
mod guards;
mod headers;
mod origin;
mod proxies;
mod rate;
mod request_body;
mod rpc_metrics;
#[cfg(test)]
mod tests;

pub(super) use self::{
    call_limits::{CallLimits, Options as CallLimitOptions},
    cors::cors,
    deadline::DeadlineLayer,
    guards::Guards,
    headers::add_headers,
    origin::Allowed,
    proxies::TrustedProxies,
    rate::{AuthFailures, Rates},
    rpc_metrics::RpcMetricsLayer,
};
