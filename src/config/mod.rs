//! The settings: defaults < TOML file < environment < flags.
//!
//! This module is the only reader of the process environment. It checks every value once and
//! returns typed structs: [`ServeConfig`] for the server, [`ClientConfig`] for the commands that
//! call one. `settings` declares each setting once, for the file, the `VISAGE_*` variables, the
//! flags and the documentation.
//!
//! The environment is passed as a map, so that tests never touch that of their process.

mod choices;
mod environment;
mod error;
mod hub;
mod render;
mod resolve;
mod rules;
mod settings;
#[cfg(test)]
mod tests;
mod value;

pub(crate) use choices::{AuthMethods, Device, Location, LogFormat, LogLevel, Precision};
pub(crate) use environment::{ClientConfig, DEFAULT_SERVER, Environment};
pub(crate) use error::edit_distance;
pub(crate) use error::{Error, ValueSource};
pub(crate) use hub::HubConfig;
pub use render::markdown_table;
pub(crate) use resolve::{Flags, Resolved, load};
pub(crate) use settings::{SETTINGS, ServeConfig, Setting};
