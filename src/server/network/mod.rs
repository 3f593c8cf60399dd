//! Connections of both ports, and the limits that protect the server from them.
//!
//! - `listener`: accepts connections within a total limit and a limit for each address.
//! - `protocol`: recognizes HTTP/1.1 and HTTP/2 by the first bytes, within a time limit.
//! - `connection`: serves one connection, and closes it when a client does not read a response.
//! - `progress`: detects responses without progress.

mod connection;
mod listener;
mod progress;
mod protocol;
#[cfg(test)]
mod tests;

pub(super) use self::{
    connection::{ConnectionState, Protocols},
    listener::{Limits, serve},
};
