use std::{collections::HashMap, fmt::Display, time::Duration};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

use crate::proto::validation::Violation;

const DOMAIN: &str = "visage";

/// Clients accept 8 KiB of trailers and drop the response if there are more
/// (grpc.max_metadata_size). The trailers contain the message twice: percent-encoded, where a
/// non-ASCII byte takes three, and within the details in base64, which adds a third.
const MAX_MESSAGE: usize = 1_500;
/// Maximum bytes of the name of a field, and of its description.
const MAX_FIELD: usize = 1_000;
/// Maximum bytes of all fields and descriptions.
const MAX_DETAILS: usize = 2_500;

const RETRY_DELAY: Duration = Duration::from_secs(1);

/// The code and reason of one kind of error.
pub(super) struct Row {
    code: Code,
    reason: &'static str,
    retry: bool,
}

impl Row {
    pub(super) const fn new(code: Code, reason: &'static str) -> Self {
        Row {
            code,
            reason,
            retry: false,
        }
    }

    /// An error for which the same call may succeed later.
    pub(super) const fn retry(code: Code, reason: &'static str) -> Self {
        Row {
            code,
            reason,
            retry: true,
        }
    }

    /// Builds the status; logs internal errors.
    pub(super) fn status(self, message: impl Display) -> Status {
        self.status_with(message, HashMap::new())
    }

    /// As [`Row::status`], with metadata of the error.
    pub(super) fn status_with(
        self,
        message: impl Display,
        metadata: HashMap<String, String>,
    ) -> Status {
        let message = message.to_string();
        if matches!(self.code, Code::Internal | Code::DataLoss) {
            tracing::error!(reason = self.reason, message, "a call failed");
        }
        let message = shorten(&message, MAX_MESSAGE);
        let mut details = ErrorDetails::with_error_info(self.reason, DOMAIN, metadata);
        if self.retry {
            details.set_retry_info(Some(RETRY_DELAY));
        }
        Status::with_error_details(self.code, message, details)
    }
}

pub(crate) fn invalid(field: &str, description: impl Display) -> Status {
    violations(&[Violation {
        field: field.to_owned(),
        description: description.to_string(),
    }])
}

/// Reports several fields at once.
pub(crate) fn violations(violations: &[Violation]) -> Status {
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
    let mut room = MAX_DETAILS;
    let mut fields = Vec::new();
    for violation in violations {
        let (field, description) = (
            shorten(&violation.field, MAX_FIELD),
            shorten(&violation.description, MAX_FIELD),
        );
        let Some(left) = room.checked_sub(field.len() + description.len()) else {
            break;
        };
        room = left;
        fields.push(FieldViolation::new(field, description));
    }
    let mut details = ErrorDetails::with_bad_request(fields);
    details.set_error_info("INVALID_FIELDS", DOMAIN, HashMap::new());
    let message = shorten(&message, MAX_MESSAGE);
    Status::with_error_details(Code::InvalidArgument, message, details)
}

/// An image that cannot be used; `message` names it by its index, `description` does not.
pub(super) fn invalid_image(field: &str, index: usize, description: &str, message: &str) -> Status {
    let status = invalid(&format!("{field}[{index}]"), description);
    let mut details = status.get_error_details();
    details.set_error_info(
        "INVALID_IMAGE",
        DOMAIN,
        HashMap::from([("index".to_owned(), index.to_string())]),
    );
    let message = shorten(message, MAX_MESSAGE);
    Status::with_error_details(Code::InvalidArgument, message, details)
}

/// Initial weights that cannot be found. `metadata` has the parts of the description, with which a
/// client can write remedies in its own terms.
pub(super) fn unavailable_weights(description: &str, metadata: &[(&str, String)]) -> Status {
    let status = invalid("spec.init", description);
    let mut details = status.get_error_details();
    let metadata: HashMap<String, String> = metadata
        .iter()
        .map(|(key, value)| ((*key).to_owned(), shorten(value, MAX_FIELD)))
        .collect();
    details.set_error_info("WEIGHTS_UNAVAILABLE", DOMAIN, metadata);
    Status::with_error_details(status.code(), status.message(), details)
}

/// Cuts a text to a maximum number of bytes in a trailer. It may contain names from the client, of
/// any length.
pub(super) fn shorten(text: &str, limit: usize) -> String {
    let mut bytes = 0;
    for (end, character) in text.char_indices() {
        bytes += match character {
            '%' => 3,
            ' '..='~' => 1,
            // gRPC writes each byte as %XX.
            other => 3 * other.len_utf8(),
        };
        if bytes > limit {
            return format!("{}…", &text[..end]);
        }
    }
    text.to_owned()
}
