//! Who a client is, and what it may do.
//!
//! - `role`: the roles. `identity`: a client with its roles and limits, which each request carries.

mod identity;
mod role;

pub(crate) use self::{
    identity::{Identity, Limits},
    role::{Role, Roles},
};
