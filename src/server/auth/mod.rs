//! Authentication and authorization on both ports.
//!
//! - `rules`: the role that each method and page requires. `credential`: the credential of a
//!   request. `layer`: authenticates, authorizes, and ends responses when a credential becomes
//!   invalid. `audit`: records changes and refused calls. `refusals`: responses without access.
//! - `follow`: reads the token file and the issuer's keys again.

mod audit;
mod credential;
mod follow;
mod layer;
mod refusals;
mod revocable;
mod rules;

pub(super) use self::{
    audit::{Audited, record},
    credential::session_cookie,
    follow::{follow, open},
    layer::{Auth, check},
};
