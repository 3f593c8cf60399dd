//! HTTP statuses of errors of uploads.

use axum::http::StatusCode;

use crate::{datasets, services::http::Failure};

/// The HTTP statuses of the protocol are more specific than those of the codes.
pub(super) fn datasets_failure(error: datasets::Error) -> Failure {
    use datasets::Error as E;
    let http = match &error {
        E::WrongOffset { .. } => Some(StatusCode::CONFLICT),
        E::Busy { .. } | E::InUse { .. } => Some(StatusCode::LOCKED),
        E::TooLong { .. } | E::UploadSize { .. } => Some(StatusCode::PAYLOAD_TOO_LARGE),
        E::DiskLow(_) | E::QuotaUsed { .. } => Some(StatusCode::INSUFFICIENT_STORAGE),
        E::Store(_)
        | E::Path(_)
        | E::Reading(_)
        | E::NoUpload { .. }
        | E::Incomplete { .. }
        | E::TooManyUploads { .. }
        | E::NoSample { .. }
        | E::Io(_) => None,
    };
    let failure = Failure::from(error);
    Failure {
        http: http.unwrap_or(failure.http),
        ..failure
    }
}
