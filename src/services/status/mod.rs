//! The one table from domain errors to gRPC statuses.
//!
//! - `build`: statuses with their details. Each status carries `google.rpc.ErrorInfo` with a stable
//!   reason in the domain `visage`; bad requests carry all field violations, and errors for which a
//!   retry may succeed carry `RetryInfo`. Internal errors are logged with their causes.
//! - `convert`: `From<..> for Status` for the error types of other modules.
//! - `access`: missing and invalid credentials, missing roles.
//! - `conditions`: errors that the services detect themselves.
//! - `http`: HTTP statuses.

mod access;
mod build;
mod conditions;
mod convert;
mod http;
#[cfg(test)]
mod tests;

pub(crate) use self::{
    access::{login_refused, role_required, unauthenticated},
    build::{invalid, violations},
    conditions::{
        Calls, batch_not_read, batch_not_sent, body_too_large, body_too_slow, check_response,
        deadline_exceeded, encoding_failed, no_evaluation, not_allowed, not_found, not_loadable,
        panicked, request_too_slow, shutting_down, stream_ends, too_fast, too_many, too_many_bytes,
        too_many_calls, too_many_calls_of_identity, too_many_failures, too_many_streams,
        training_replaced, unimplemented, upload_interrupted, upload_too_slow, uploads_disabled,
    },
    convert::{inference_error, invalid_dataset, invalid_weights, weights_unavailable},
    http::http,
};
