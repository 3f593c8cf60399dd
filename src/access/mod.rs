//! Identities and rights of clients.
//!
//! - `role`: the roles. `identity`: a client with its roles and limits, which each request carries.
//!   `owner`: resources that only their owner may change.
//! - `token`: the text of tokens. `password`: hashes of passwords. `credentials`: the contents of
//!   the token file; `token_file` reads it, `token_edit` edits it.
//! - `session`: sessions of browsers. `oidc`: JSON Web Tokens of an OpenID Connect issuer.
//! - `authenticator`: finds the identity of a credential, or the `refusal`. `audit`: the log
//!   of changes.

mod audit;
mod authenticator;
mod credentials;
mod identity;
mod oidc;
mod owner;
mod password;
mod refusal;
mod role;
mod session;
mod token;
mod token_edit;
mod token_file;

pub(crate) use self::{
    audit::{AuditEntry, AuditLog, AuditPlace},
    authenticator::Authenticator,
    identity::{Identity, Limits},
    oidc::{Oidc, OidcError, OidcOptions},
    owner::Actor,
    refusal::Refusal,
    role::{Role, Roles},
    token_edit::{NewCredential, NewEntry, add, list, revoke},
    token_file::TokenFileError,
};
