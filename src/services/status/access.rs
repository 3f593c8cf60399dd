use std::{collections::HashMap, fmt::Display};

use tonic::{Code, Status};

use super::build::Row;
use crate::access::{Refusal, Role};

/// A request without a valid credential.
pub(crate) fn unauthenticated(refusal: Refusal) -> Status {
    const INVALID: Row = Row::new(Code::Unauthenticated, "CREDENTIAL_INVALID");
    let (row, message) = match refusal {
        Refusal::Missing => (
            Row::new(Code::Unauthenticated, "CREDENTIAL_MISSING"),
            "this server requires a credential; send a token as `authorization: Bearer TOKEN`",
        ),
        Refusal::Malformed => (
            INVALID,
            "the credential is incomplete or has a typing error; send it as `authorization: Bearer TOKEN`",
        ),
        Refusal::Unknown => (
            INVALID,
            "the credential is unknown or was revoked; ask an administrator for another",
        ),
        Refusal::Expired => (
            Row::new(Code::Unauthenticated, "CREDENTIAL_EXPIRED"),
            "the credential or the session has expired; log in again, or ask an administrator for another token",
        ),
        Refusal::UnknownCertificate => (
            INVALID,
            "the names of the client certificate have no entry in the token file; ask an administrator to add one",
        ),
        Refusal::MethodDisabled => (
            INVALID,
            "this server does not accept this kind of credential (setting auth)",
        ),
        Refusal::Busy => (
            Row::retry(Code::ResourceExhausted, "TOO_MANY_REQUESTS"),
            "too many logins wait for their check; try again in some seconds",
        ),
    };
    row.status(message)
}

/// A login that failed; the same text for an unknown name and a wrong password.
pub(crate) fn login_refused(refusal: Refusal) -> Status {
    match refusal {
        Refusal::Unknown => Row::new(Code::Unauthenticated, "CREDENTIAL_INVALID")
            .status("the name or password is wrong, or the token is unknown"),
        Refusal::Missing
        | Refusal::Malformed
        | Refusal::Expired
        | Refusal::UnknownCertificate
        | Refusal::MethodDisabled
        | Refusal::Busy => unauthenticated(refusal),
    }
}

/// A client that has none of these roles. `action` is what it tried, in a few words.
pub(crate) fn role_required(roles: &[Role], action: impl Display) -> Status {
    let names: Vec<&str> = roles.iter().map(|role| role.as_str()).collect();
    let names = names.join(" or ");
    let message = format!("{action} requires the role {names}; ask an administrator for it");
    let metadata = HashMap::from([("role".to_owned(), names)]);
    Row::new(Code::PermissionDenied, "ROLE_REQUIRED").status_with(message, metadata)
}
