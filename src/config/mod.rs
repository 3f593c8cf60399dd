//! The settings: defaults < TOML file < environment < flags.
//!
//! This module is the only reader of the process environment. It checks every value once and
//! returns typed structs: [`ServeConfig`] for the server, [`ClientConfig`] for the commands that
//! call one, with `servers` for servers that have names. `settings` declares each setting once, for
//! the file, the `VISAGE_*` variables, the flags and the documentation.
//!
//! The environment is passed as a map, so that tests never touch that of their process.

mod choices;
mod client;
#[cfg(test)]
mod client_tests;
mod environment;
mod error;
mod hub;
mod render;
mod resolve;
mod rules;
mod servers;
mod settings;
#[cfg(test)]
mod tests;
mod token;
mod value;

pub(crate) use choices::{AuthMethods, Device, Location, LogFormat, LogLevel, Precision};
pub(crate) use client::{ClientConfig, ClientFlags, DEFAULT_SERVER, TokenSource};
pub(crate) use environment::Environment;
pub(crate) use error::edit_distance;
pub(crate) use error::{Error, ValueSource};
pub(crate) use hub::HubConfig;
pub use render::markdown_table;
pub(crate) use resolve::{Flags, Resolved, load};
pub(crate) use servers::{ServersFile, is_name as is_server_name};
pub(crate) use settings::{SETTINGS, ServeConfig, Setting};
pub(crate) use token::Token;
