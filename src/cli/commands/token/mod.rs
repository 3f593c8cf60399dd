//! `visage token`: the tokens, users and certificates that a server accepts.
//!
//! The commands edit the token file of the server, on its machine; the server reads it again by
//! itself. `password` reads a password from the terminal.

mod args;
mod password;
mod run;

pub(crate) use self::{args::Args, run::run};
