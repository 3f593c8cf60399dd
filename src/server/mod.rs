//! The composition root: creates all components, serves them, and shuts them down.
//!
//! - `run`: the life of the server, from the sockets to the exit.
//! - `components`: database, files, engine, registry, supervisor, datasets; opened in this order.
//! - `routes`: the services of the gRPC port and the pages of the HTTP port. `reflection`,
//!   `health`, `info`: services and answers without a module of their own.
//! - `auth`: identities and roles of both ports.
//! - `guards`: the order of the outer layers.
//! - `network`: connections of both ports and their limits. `layers`: checks of every call, limits,
//!   metrics and traces, deadlines.
//! - `http`: the HTTP port. `shutdown`: signals, and waiting for what still runs.
//!
//! On shutdown, the ports stop accepting calls, streams end with UNAVAILABLE, the worker is asked
//! to stop, and after the grace period everything that still runs is dropped.

mod auth;
mod components;
mod compression;
mod error;
mod guards;
mod health;
mod http;
mod info;
mod layers;
mod network;
mod reflection;
mod routes;
mod run;
mod shutdown;

pub(crate) use self::{
    error::Error,
    run::{Ready, run},
};
