//! The one table from domain errors to gRPC statuses.
//!
//! Each status carries `google.rpc.ErrorInfo` with a stable reason in the domain `visage`; bad requests carry all field violations, and errors that
//! waiting mends carry `RetryInfo`. Faults of ours go to the log with their causes; the client gets a sentence.

use std::{collections::HashMap, time::Duration};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

use crate::{
    artifacts, dataset, datasets, evaluation::plots, files, inference, model, names,
    proto::validation::Violation, registry, store, telemetry::logging, training::supervisor,
};

const DOMAIN: &str = "visage";

/// Clients take 8 KiB of trailers, and give up the answer with all that it says where there are more (grpc.max_metadata_size). The message is in them twice:
/// by itself, each byte of another language as three, and within the details, which are in base64 and so a third larger.
const MOST_OF_A_MESSAGE: usize = 1_500;
/// Bytes of the name of a field, and of what is wrong with it.
const MOST_OF_A_FIELD: usize = 1_000;
/// Bytes of all fields with what is wrong with them.
const MOST_DETAILS: usize = 2_500;

/// How long a client should wait before it tries again.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// What one kind of error looks like to a client.
struct Row {
    code: Code,
    reason: &'static str,
    retry: bool,
}

impl Row {
    const fn new(code: Code, reason: &'static str) -> Self {
        Row {
            code,
            reason,
            retry: false,
        }
    }

    const fn retry(code: Code, reason: &'static str) -> Self {
        Row {
            code,
            reason,
            retry: true,
        }
    }

    /// Makes the status; a fault of ours is logged.
    fn status(self, message: String) -> Status {
        if matches!(self.code, Code::Internal | Code::DataLoss) {
            tracing::error!(reason = self.reason, message, "a call failed");
        }
        let message = shorten(&message, MOST_OF_A_MESSAGE);
        let mut details = ErrorDetails::with_error_info(self.reason, DOMAIN, HashMap::new());
        if self.retry {
            details.set_retry_info(Some(RETRY_DELAY));
        }
        Status::with_error_details(self.code, message, details)
    }
}

/// One bad field.
pub fn invalid(field: &str, description: &str) -> Status {
    violations(&[Violation {
        field: field.to_owned(),
        description: description.to_owned(),
    }])
}

/// Bad fields, all at once.
pub fn violations(violations: &[Violation]) -> Status {
    let first = violations
        .first()
        .map(|violation| format!("{}: {}", violation.field, violation.description));
    let message = match violations.len() {
        0 | 1 => first.unwrap_or_default(),
        more => format!(
            "{} (and {} more violations)",
            first.unwrap_or_default(),
            more - 1
        ),
    };
    let mut room = MOST_DETAILS;
    let mut fields = Vec::new();
    for violation in violations {
        let (field, description) = (
            shorten(&violation.field, MOST_OF_A_FIELD),
            shorten(&violation.description, MOST_OF_A_FIELD),
        );
        let Some(left) = room.checked_sub(field.len() + description.len()) else {
            break;
        };
        room = left;
        fields.push(FieldViolation::new(field, description));
    }
    let mut details = ErrorDetails::with_bad_request(fields);
    details.set_error_info("INVALID_FIELDS", DOMAIN, HashMap::new());
    let message = shorten(&message, MOST_OF_A_MESSAGE);
    Status::with_error_details(Code::InvalidArgument, message, details)
}

/// A log filter that is refused.
pub fn from_logging(error: &logging::Error) -> Status {
    match error {
        logging::Error::Filter { .. }
        | logging::Error::Level { .. }
        | logging::Error::Empty
        | logging::Error::TooLong { .. } => invalid("directives", &logging::chain(error)),
        logging::Error::NotInitialized | logging::Error::AlreadyInitialized => {
            Row::new(Code::FailedPrecondition, "LOG_LEVEL_FIXED").status(error.to_string())
        }
    }
}

/// The call's deadline has passed.
pub fn deadline_exceeded() -> Status {
    from_inference(&inference::Error::DeadlineExceeded)
}

/// Something that a name stands for does not exist.
pub fn not_found(message: &str) -> Status {
    Row::new(Code::NotFound, "NOT_FOUND").status(message.to_owned())
}

/// A version whose training left no evaluation.
pub fn no_evaluation(version: &str) -> Status {
    Row::new(Code::NotFound, "NO_EVALUATION").status(format!(
        "{version} has no stored evaluation: its training had no test images, or it was not made of the training's best checkpoint; evaluate it on a dataset instead"
    ))
}

/// As many evaluations as the server runs at once.
pub fn too_many_evaluations(limit: usize) -> Status {
    Row::retry(Code::ResourceExhausted, "TOO_MANY_EVALUATIONS").status(format!(
        "{limit} evaluations are running, which is the limit; try again when one has ended"
    ))
}

/// The server takes no uploads.
pub fn no_uploads() -> Status {
    Row::new(Code::FailedPrecondition, "NO_UPLOADS").status(
        "this server takes no uploads (its setting uploads is off); register a directory of the server instead"
            .to_owned(),
    )
}

/// As many starts that are only tried as the server looks through at once.
pub fn too_many_validations(limit: usize) -> Status {
    Row::retry(Code::ResourceExhausted, "TOO_MANY_VALIDATIONS").status(format!(
        "{limit} trainings are being validated, which is the limit; try again when one has been"
    ))
}

/// As many checks of datasets as the server runs at once.
pub fn too_many_checks(limit: usize) -> Status {
    Row::retry(Code::ResourceExhausted, "TOO_MANY_CHECKS").status(format!(
        "{limit} datasets are being checked, which is the limit; try again when one has ended"
    ))
}

/// As many calls of PredictBatch as the server answers at once.
pub fn too_many_batches(limit: usize) -> Status {
    Row::retry(Code::ResourceExhausted, "TOO_MANY_BATCHES").status(format!(
        "{limit} calls of PredictBatch are being answered, which is the limit; send the images over fewer calls or try again when one has ended"
    ))
}

/// From the plots of an evaluation.
pub fn from_plots(error: &plots::Error) -> Status {
    Row::new(Code::Internal, "PLOTS").status(error.to_string())
}

/// A client that did not take what it had asked for.
pub fn not_taken(patience: Duration) -> Status {
    Row::new(Code::Aborted, "NOT_TAKEN").status(format!(
        "no answer was taken for {} seconds; read the answers while you send, and send again what was not answered",
        patience.as_secs()
    ))
}

/// A client that did not send what it had announced.
pub fn not_sent(patience: Duration) -> Status {
    Row::new(Code::Aborted, "NOT_SENT").status(format!(
        "nothing was sent for {} seconds while no answer was due; end the call when you have no more images, and begin another one when there are some",
        patience.as_secs()
    ))
}

/// The work for a message panicked, which the log tells of.
pub fn panicked() -> Status {
    Row::new(Code::Internal, "PANIC").status("the work for this message failed".to_owned())
}

/// The server is about to end; the same call will work on the next one.
pub fn shutting_down() -> Status {
    Row::retry(Code::Unavailable, "SHUTTING_DOWN")
        .status("the server is shutting down; reconnect and go on from the last event".to_owned())
}

/// The same for a stream of requests.
pub fn stream_ends() -> Status {
    Row::retry(Code::Unavailable, "SHUTTING_DOWN").status(
        "the server is shutting down; reconnect and send what was not answered again".to_owned(),
    )
}

/// A field holds a name that is not of its form.
pub fn bad_name(field: &str, error: &names::Error) -> Status {
    invalid(field, &error.to_string())
}

/// A version that is there and does not load.
pub fn not_loadable(version: &str, why: &str) -> Status {
    Row::retry(Code::Unavailable, "MODEL_NOT_LOADABLE")
        .status(format!("{version} does not load: {why}"))
}

/// From the store.
pub fn from_store(error: store::Error) -> Status {
    use store::Error as E;
    let row = match &error {
        E::NotFound { .. } => Row::new(Code::NotFound, "NOT_FOUND"),
        E::AlreadyExists { .. } => Row::new(Code::AlreadyExists, "ALREADY_EXISTS"),
        E::BadName { .. } => Row::new(Code::InvalidArgument, "BAD_NAME"),
        E::RequestIdReused { .. } => Row::new(Code::InvalidArgument, "REQUEST_ID_REUSED"),
        E::QueueFull { .. } => Row::retry(Code::ResourceExhausted, "TRAINING_QUEUE_FULL"),
        E::Terminal { .. } => Row::new(Code::FailedPrecondition, "TRAINING_TERMINAL"),
        E::StillLive { .. } => Row::new(Code::FailedPrecondition, "TRAINING_LIVE"),
        E::DatasetInUse { .. } => Row::new(Code::FailedPrecondition, "DATASET_IN_USE"),
        E::UploadUsed { .. } => Row::new(Code::FailedPrecondition, "UPLOAD_USED"),
        E::TooManyDatasets { .. } => Row::retry(Code::ResourceExhausted, "TOO_MANY_DATASETS"),
        E::AliasMoved { .. } => Row::new(Code::Aborted, "ALIAS_MOVED"),
        E::CursorAhead { .. } => Row::new(Code::OutOfRange, "CURSOR_AHEAD"),
        E::BadToken { .. } => Row::new(Code::InvalidArgument, "BAD_TOKEN"),
        E::DiskFull { .. } => Row::retry(Code::ResourceExhausted, "DISK_FULL"),
        E::Closed => return shutting_down(),
        E::Damaged { .. } | E::CorruptDatabase { .. } => {
            Row::new(Code::DataLoss, "DATABASE_DAMAGED")
        }
        E::NotAppendable { .. }
        | E::NewerDatabase { .. }
        | E::ForeignDatabase { .. }
        | E::Locked { .. }
        | E::Directory { .. }
        | E::Migration { .. }
        | E::Database { .. } => {
            tracing::error!(?error, "the database failed");
            Row::new(Code::Internal, "DATABASE")
        }
    };
    row.status(error.to_string())
}

/// From the artifacts.
pub fn from_artifacts(error: artifacts::Error) -> Status {
    use artifacts::Error as E;
    let row = match &error {
        E::NotFound { .. } => Row::new(Code::NotFound, "FILE_NOT_FOUND"),
        E::Corrupt { .. } => Row::new(Code::DataLoss, "CHECKPOINT_CORRUPT"),
        E::DiskFull { .. } => Row::retry(Code::ResourceExhausted, "DISK_FULL"),
        E::BadDigest { .. } | E::File { .. } | E::Store { .. } => {
            Row::new(Code::Internal, "ARTIFACTS")
        }
    };
    row.status(error.to_string())
}

/// From the registry.
pub fn from_registry(error: registry::Error) -> Status {
    use registry::Error as E;
    match error {
        E::Store(error) => from_store(error),
        E::Artifacts(error) => from_artifacts(error),
        E::Model(error) => from_model(&error),
        E::Inference(error) => from_inference(&error),
        E::NoLiveVersion { .. } => {
            Row::new(Code::FailedPrecondition, "NO_LIVE_MODEL").status(error.to_string())
        }
        E::NoFile { .. } => Row::new(Code::DataLoss, "FILE_NOT_FOUND").status(error.to_string()),
    }
}

/// From the datasets with a name.
pub fn from_datasets(error: datasets::Error) -> Status {
    use datasets::Error as E;
    match error {
        E::Store(error) => from_store(error),
        E::Path(error) => invalid(dataset_field(&error), &error.to_string()),
        E::Reading(description) => invalid("age_pattern", &description),
        E::NoUpload { .. } => Row::new(Code::NotFound, "NO_UPLOAD").status(error.to_string()),
        E::NoSample { .. } => Row::new(Code::NotFound, "NOT_FOUND").status(error.to_string()),
        E::Incomplete { .. } => {
            Row::new(Code::FailedPrecondition, "UPLOAD_INCOMPLETE").status(error.to_string())
        }
        E::WrongOffset { .. } => Row::new(Code::Aborted, "UPLOAD_OFFSET").status(error.to_string()),
        E::TooLong { .. } | E::UploadSize { .. } => {
            Row::new(Code::OutOfRange, "UPLOAD_TOO_LARGE").status(error.to_string())
        }
        E::TooManyUploads { .. } => {
            Row::retry(Code::ResourceExhausted, "TOO_MANY_UPLOADS").status(error.to_string())
        }
        E::Busy { .. } | E::InUse { .. } => {
            Row::retry(Code::Aborted, "UPLOAD_BUSY").status(error.to_string())
        }
        E::Io(cause) if files::is_disk_full(&cause) => {
            Row::retry(Code::ResourceExhausted, "DISK_FULL")
                .status("the server's disk is full; make room and try again".to_owned())
        }
        E::Io(_) => Row::new(Code::Internal, "DATASET_FILES").status(error.to_string()),
    }
}

/// An upload whose client sends nothing for too long.
pub fn upload_too_slow(patience: Duration) -> Status {
    Row::new(Code::DeadlineExceeded, "UPLOAD_TOO_SLOW").status(format!(
        "no byte came for {} seconds; ask for the offset of the upload and go on from there",
        patience.as_secs()
    ))
}

/// An upload that breaks off.
pub fn upload_broken(cause: &str) -> Status {
    Row::new(Code::Cancelled, "UPLOAD_BROKEN").status(format!("the upload broke off: {cause}"))
}

/// From the supervisor.
pub fn from_supervisor(error: supervisor::Error) -> Status {
    use supervisor::Error as E;
    match error {
        E::Store(error) => from_store(error),
        E::Artifacts(error) => from_artifacts(error),
        E::AlreadyEnded { .. } => {
            Row::new(Code::FailedPrecondition, "TRAINING_TERMINAL").status(error.to_string())
        }
        E::NotNow { .. } => {
            Row::retry(Code::FailedPrecondition, "TRAINING_NOT_NOW").status(error.to_string())
        }
    }
}

/// From inference.
pub fn from_inference(error: &inference::Error) -> Status {
    from_inference_of(error, "images")
}

/// The same for a request whose images are in another field.
pub fn from_inference_of(error: &inference::Error, images: &str) -> Status {
    use inference::Error as E;
    match error {
        E::Image { index, source } => invalid_image(images, *index, &source.to_string(), error),
        E::Pixels { index, reason } => invalid_image(images, *index, reason, error),
        E::File { .. } => Row::new(Code::Internal, "FILE_UNREADABLE").status(error.to_string()),
        E::QueueFull { .. } => {
            Row::retry(Code::ResourceExhausted, "QUEUE_FULL").status(error.to_string())
        }
        E::ShareFull { .. } => {
            Row::retry(Code::ResourceExhausted, "CLIENT_SHARE_FULL").status(error.to_string())
        }
        E::WaitTooLong { .. } => {
            Row::retry(Code::ResourceExhausted, "WAIT_TOO_LONG").status(error.to_string())
        }
        E::DeadlineExceeded => {
            Row::new(Code::DeadlineExceeded, "DEADLINE_EXCEEDED").status(error.to_string())
        }
        E::Model { source, .. } => from_model(source),
        E::NotFinite { .. } => Row::new(Code::DataLoss, "MODEL_DAMAGED").status(error.to_string()),
        E::EngineGone => Row::new(Code::Internal, "ENGINE_GONE").status(error.to_string()),
    }
}

fn invalid_image(
    images: &str,
    index: usize,
    description: &str,
    error: &inference::Error,
) -> Status {
    let status = invalid(&format!("{images}[{index}]"), description);
    let mut details = status.get_error_details();
    details.set_error_info(
        "INVALID_IMAGE",
        DOMAIN,
        HashMap::from([("index".to_owned(), index.to_string())]),
    );
    let message = shorten(&error.to_string(), MOST_OF_A_MESSAGE);
    Status::with_error_details(Code::InvalidArgument, message, details)
}

/// Something that the protocol has and Visage has not.
pub fn unimplemented(message: &str) -> Status {
    Row::new(Code::Unimplemented, "NOT_SUPPORTED").status(message.to_owned())
}

/// As many requests with bodies as the HTTP port takes at once.
pub fn too_many_requests(limit: usize) -> Status {
    Row::retry(Code::ResourceExhausted, "TOO_MANY_REQUESTS").status(format!(
        "{limit} requests are being answered, which is the limit; try again in a moment"
    ))
}

/// A body that has more bytes than the HTTP port takes.
pub fn body_too_large(limit: usize) -> Status {
    Row::new(Code::OutOfRange, "BODY_TOO_LARGE").status(format!(
        "the body has more than {limit} bytes, which is the limit (max_message_bytes); send fewer images at once"
    ))
}

/// A body that did not come.
pub fn body_too_slow(patience: Duration) -> Status {
    Row::new(Code::DeadlineExceeded, "BODY_TOO_SLOW").status(format!(
        "the body was not here within {} seconds",
        patience.as_secs()
    ))
}

/// An answer that cannot be written.
pub fn unwritable(cause: &str) -> Status {
    Row::new(Code::Internal, "ANSWER").status(format!("the answer cannot be written: {cause}"))
}

/// The HTTP status of a code, as `google.rpc.Code` has it; but a server without a live model is not the client's fault, so that it is 503 and not 400.
pub fn http(code: Code) -> http::StatusCode {
    use http::StatusCode as S;
    match code {
        Code::Ok => S::OK,
        Code::InvalidArgument | Code::OutOfRange => S::BAD_REQUEST,
        Code::Unauthenticated => S::UNAUTHORIZED,
        Code::PermissionDenied => S::FORBIDDEN,
        Code::NotFound => S::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => S::CONFLICT,
        Code::ResourceExhausted => S::TOO_MANY_REQUESTS,
        Code::Unimplemented => S::NOT_IMPLEMENTED,
        Code::Unavailable | Code::FailedPrecondition => S::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded => S::GATEWAY_TIMEOUT,
        Code::Cancelled | Code::Unknown | Code::Internal | Code::DataLoss => {
            S::INTERNAL_SERVER_ERROR
        }
    }
}

/// From the network or its files.
pub fn from_model(error: &model::Error) -> Status {
    use model::Error as E;
    let row = match error {
        _ if error.is_out_of_memory() => Row::retry(Code::ResourceExhausted, "OUT_OF_MEMORY"),
        E::Manifest { .. } | E::Checksum { .. } | E::Weights(_) => {
            Row::new(Code::DataLoss, "CHECKPOINT_CORRUPT")
        }
        E::Precision { .. } => Row::new(Code::FailedPrecondition, "PRECISION_UNAVAILABLE"),
        E::Torch(_) | E::Io(_) | E::Device { .. } | E::Trainable(_) => {
            Row::new(Code::Internal, "MODEL")
        }
    };
    row.status(error.to_string())
}

/// From the dataset, in a call that only checks it.
pub fn from_dataset(error: &dataset::Error) -> Status {
    let field = format!("spec.dataset.{}", dataset_field(error));
    invalid(&field, &error.to_string())
}

/// The field of a DatasetSpec that does not fit the dataset.
pub fn dataset_field(error: &dataset::Error) -> &'static str {
    if let dataset::Error::PatternOfManifest { .. } = error {
        return "age_pattern";
    }
    if let dataset::Error::ColumnsOfDirectory { .. } = error {
        return "columns";
    }
    if let dataset::Error::TooManySearched { .. } = error {
        return "split_grouping";
    }
    "path"
}

/// From initial weights, in a call that only checks them.
pub fn from_weights(error: &model::Error) -> Status {
    use model::weights::{Error, FormatError};
    let is_about_key = matches!(
        error,
        model::Error::Weights(Error::Format {
            reason: FormatError::UnknownKey { .. },
            ..
        })
    );
    let field = if is_about_key {
        "spec.init.key"
    } else {
        "spec.init.path"
    };
    invalid(field, &error.to_string())
}

/// Cuts a text to so many bytes as a trailer has them. Names of the client's own may be in it, of any length.
fn shorten(text: &str, most: usize) -> String {
    let mut bytes = 0;
    for (end, character) in text.char_indices() {
        bytes += match character {
            '%' => 3,
            ' '..='~' => 1,
            // Each byte is written as %XX, by gRPC's rules for messages.
            other => 3 * other.len_utf8(),
        };
        if bytes > most {
            return format!("{}…", &text[..end]);
        }
    }
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn violations_come_all_at_once_with_a_reason() {
        let status = violations(&[
            Violation {
                field: "spec.max_epochs".to_owned(),
                description: "0 is out of range".to_owned(),
            },
            Violation {
                field: "spec.batch_size".to_owned(),
                description: "0 is out of range".to_owned(),
            },
        ]);
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(
            status.message(),
            "spec.max_epochs: 0 is out of range (and 1 more violations)"
        );
        let details = status.get_error_details();
        let fields = details.bad_request().unwrap().field_violations.clone();
        assert_eq!(
            fields
                .iter()
                .map(|field| field.field.as_str())
                .collect::<Vec<_>>(),
            ["spec.max_epochs", "spec.batch_size"]
        );
        assert_eq!(details.error_info().unwrap().reason, "INVALID_FIELDS");
    }

    #[test]
    fn trailers_are_no_longer_than_clients_take() {
        let name = "年".repeat(5_000);
        let many: Vec<Violation> = (0..40)
            .map(|_| Violation {
                field: name.clone(),
                description: name.clone(),
            })
            .collect();
        for status in [violations(&many), not_found(&name)] {
            let headers = status.clone().into_http::<()>().into_parts().0.headers;
            let bytes: usize = headers
                .iter()
                // 32 for each entry, by the rules of HTTP/2 (RFC 7540, 6.5.2).
                .map(|(name, value)| name.as_str().len() + value.len() + 32)
                .sum();
            assert!(bytes < 8_192, "{bytes}");
            assert!(status.message().starts_with("年"), "{}", status.message());
        }
        // What fits stays whole.
        let fields = violations(&many[..2]).get_error_details();
        assert_eq!(fields.bad_request().unwrap().field_violations.len(), 2);
        assert_eq!(shorten("years %", 9), "years %");
        assert_eq!(shorten("years %", 8), "years …");
    }

    #[test]
    fn errors_that_waiting_mends_say_how_long() {
        let status = from_inference(&inference::Error::QueueFull {
            waiting: 256,
            wanted: 1,
            limit: 256,
        });
        assert_eq!(status.code(), Code::ResourceExhausted);
        let details = status.get_error_details();
        assert_eq!(details.error_info().unwrap().reason, "QUEUE_FULL");
        assert_eq!(details.retry_info().unwrap().retry_delay, Some(RETRY_DELAY));
    }
}
