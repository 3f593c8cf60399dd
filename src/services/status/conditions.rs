use std::{fmt::Display, time::Duration};

use prost::Message;
use tonic::{Code, Status};

use super::build::Row;
use crate::{inference, proto::in_flight};

/// Kinds of calls with a limited number of concurrent ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Calls {
    Evaluations,
    /// StartTraining with `validate_only`.
    Validations,
    DatasetChecks,
    /// PredictBatch.
    Batches,
    /// HTTP requests with a body.
    Requests,
}

pub(crate) fn too_many(calls: Calls, limit: usize) -> Status {
    let (row, name) = match calls {
        Calls::Evaluations => (
            Row::retry(Code::ResourceExhausted, "TOO_MANY_EVALUATIONS"),
            "evaluations",
        ),
        Calls::Validations => (
            Row::retry(Code::ResourceExhausted, "TOO_MANY_VALIDATIONS"),
            "validations of trainings",
        ),
        Calls::DatasetChecks => (
            Row::retry(Code::ResourceExhausted, "TOO_MANY_CHECKS"),
            "dataset checks",
        ),
        Calls::Batches => (
            Row::retry(Code::ResourceExhausted, "TOO_MANY_BATCHES"),
            "calls of PredictBatch",
        ),
        Calls::Requests => (
            Row::retry(Code::ResourceExhausted, "TOO_MANY_REQUESTS"),
            "requests",
        ),
    };
    row.status(format_args!(
        "{limit} {name} are running, which is the limit; try again when one has finished"
    ))
}

/// A request that a page of another origin may have caused.
pub(crate) fn not_allowed(reason: &'static str, message: impl Display) -> Status {
    Row::new(Code::PermissionDenied, reason).status(message)
}

pub(crate) fn too_many_calls(limit: usize) -> Status {
    Row::retry(Code::ResourceExhausted, "TOO_MANY_CALLS").status(format_args!(
        "too many calls are open, in all or from this address, which may have {limit} (max_calls_per_address); try again when some have finished"
    ))
}

pub(crate) fn too_many_calls_of_identity(limit: u32) -> Status {
    Row::retry(Code::ResourceExhausted, "TOO_MANY_CALLS").status(format_args!(
        "{limit} calls of this identity are open, which is its limit; try again when some have finished"
    ))
}

pub(crate) fn too_many_streams(all: usize, per_client: usize) -> Status {
    Row::retry(Code::ResourceExhausted, "TOO_MANY_STREAMS").status(format_args!(
        "too many event streams are open: {all} in all (max_event_streams) or {per_client} of this client (max_event_streams_per_client); end others, or follow trainings/- with one stream"
    ))
}

pub(crate) fn too_fast(calls_per_second: u32) -> Status {
    Row::retry(Code::ResourceExhausted, "TOO_MANY_CALLS_PER_SECOND").status(format_args!(
        "this client may start {calls_per_second} calls in a second (max_calls_per_second, or the limit of its identity); send them more slowly"
    ))
}

/// Too many attempts to authenticate.
pub(crate) fn too_many_failures(limit: u32) -> Status {
    Row::new(Code::ResourceExhausted, "TOO_MANY_FAILURES").status(format_args!(
        "more than {limit} requests of this client were refused within a minute; try again later"
    ))
}

pub(crate) fn too_many_bytes() -> Status {
    Row::retry(Code::ResourceExhausted, in_flight::REASON).status(in_flight::MESSAGE)
}

/// Holds the memory of a response until it is sent.
///
/// # Errors
/// RESOURCE_EXHAUSTED if the requests and responses in flight use all of it.
pub(crate) fn check_response(response: &impl Message) -> Result<(), Status> {
    match in_flight::hold_response(response.encoded_len()) {
        true => Ok(()),
        false => Err(too_many_bytes()),
    }
}

/// A request whose bytes stopped arriving.
pub(crate) fn request_too_slow(timeout: Duration) -> Status {
    Row::new(Code::DeadlineExceeded, "REQUEST_TOO_SLOW").status(format_args!(
        "the request made no progress for {} seconds (stall_timeout); send it again",
        timeout.as_secs_f64()
    ))
}

pub(crate) fn deadline_exceeded() -> Status {
    inference::Error::DeadlineExceeded.into()
}

pub(crate) fn not_found(message: impl Display) -> Status {
    Row::new(Code::NotFound, "NOT_FOUND").status(message)
}

/// The training of a version stored no evaluation.
pub(crate) fn no_evaluation(version: &str) -> Status {
    Row::new(Code::NotFound, "NO_EVALUATION").status(format_args!(
        "{version} has no stored evaluation: its training had no test images, or the version is not the training's best checkpoint; evaluate it on a dataset instead"
    ))
}

pub(crate) fn uploads_disabled() -> Status {
    Row::new(Code::FailedPrecondition, "NO_UPLOADS").status(
        "this server does not accept uploads because its setting uploads is off; register a directory of the server instead",
    )
}

/// A client of PredictBatch that does not read the responses.
pub(crate) fn batch_not_read(timeout: Duration) -> Status {
    Row::new(Code::Aborted, "NOT_TAKEN").status(format_args!(
        "the client did not read a response for {} seconds; read the responses while sending, and send the images without a response again",
        timeout.as_secs()
    ))
}

/// A client of PredictBatch that sends nothing although all its images have a response.
pub(crate) fn batch_not_sent(timeout: Duration) -> Status {
    Row::new(Code::Aborted, "NOT_SENT").status(format_args!(
        "the client did not send an image for {} seconds although no response was pending; end the call after the last image, and start another call for more",
        timeout.as_secs()
    ))
}

/// The training that a stream follows was replaced by one of the same id.
pub(crate) fn training_replaced(id: &str) -> Status {
    Row::new(Code::NotFound, "TRAINING_REPLACED").status(format_args!(
        "the followed training trainings/{id} never started and was replaced by a new one; stream the new one from its first event"
    ))
}

/// A panic, which the log describes.
pub(crate) fn panicked() -> Status {
    Row::new(Code::Internal, "PANIC").status("failed to process this message")
}

/// The same call will succeed after the restart.
pub(crate) fn shutting_down() -> Status {
    Row::retry(Code::Unavailable, "SHUTTING_DOWN")
        .status("the server is shutting down; reconnect and resume after the last event")
}

/// As [`shutting_down`], for a stream of requests.
pub(crate) fn stream_ends() -> Status {
    Row::retry(Code::Unavailable, "SHUTTING_DOWN").status(
        "the server is shutting down; reconnect and send the requests without a response again",
    )
}

/// A version that exists and does not load.
pub(crate) fn not_loadable(version: &str, cause: &str) -> Status {
    Row::retry(Code::Unavailable, "MODEL_NOT_LOADABLE")
        .status(format_args!("failed to load {version}: {cause}"))
}

pub(crate) fn upload_too_slow(timeout: Duration) -> Status {
    Row::new(Code::DeadlineExceeded, "UPLOAD_TOO_SLOW").status(format_args!(
        "no bytes were received for {} seconds; request the offset of the upload and resume there",
        timeout.as_secs()
    ))
}

pub(crate) fn upload_interrupted(cause: impl Display) -> Status {
    Row::new(Code::Cancelled, "UPLOAD_BROKEN")
        .status(format_args!("the upload was interrupted: {cause}"))
}

/// A part of the Open Inference Protocol that Visage does not support.
pub(crate) fn unimplemented(message: impl Display) -> Status {
    Row::new(Code::Unimplemented, "NOT_SUPPORTED").status(message)
}

pub(crate) fn body_too_large(limit: usize) -> Status {
    Row::new(Code::OutOfRange, "BODY_TOO_LARGE").status(format_args!(
        "the body must have at most {limit} bytes (max_message_bytes); send fewer images at once"
    ))
}

pub(crate) fn body_too_slow(timeout: Duration) -> Status {
    Row::new(Code::DeadlineExceeded, "BODY_TOO_SLOW").status(format_args!(
        "the body was not received within {} seconds",
        timeout.as_secs()
    ))
}

pub(crate) fn encoding_failed(cause: impl Display) -> Status {
    Row::new(Code::Internal, "ANSWER")
        .status(format_args!("failed to encode the response: {cause}"))
}
