//! JSON Web Tokens of an OpenID Connect issuer (RFC 7519, OpenID Connect Core 1.0).
//!
//! - `keys`: the issuer's keys (JWKS, RFC 7517). `source`: reads them from a file or a URL.
//! - `verify`: checks a token and finds the identity. `signatures`: the algorithms, from ring.

mod keys;
mod signatures;
mod source;
mod verify;

pub(crate) use self::{
    source::OidcError,
    verify::{Oidc, OidcOptions},
};
