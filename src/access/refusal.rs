use std::time::SystemTime;

use super::Identity;

/// The reason to refuse a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The request has no credential.
    Missing,
    /// The text is not a credential that the server or its issuer could have created.
    Malformed,
    /// Never created, or revoked.
    Unknown,
    Expired,
    /// A certificate without an entry in the token file.
    UnknownCertificate,
    /// The method of this credential is not enabled.
    MethodDisabled,
    /// Too many passwords wait for their check.
    Busy,
}

/// Refuses an identity whose credential has expired.
pub(super) fn unexpired(identity: Identity) -> Result<Identity, Refusal> {
    if identity.is_expired(SystemTime::now()) {
        return Err(Refusal::Expired);
    }
    Ok(identity)
}
