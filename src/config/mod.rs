//! The settings: defaults < TOML file < environment < flags.
//!
//! This module is the only reader of the process environment. Every value is checked once, here, and handed on as a plain typed
//! struct: [`ServeConfig`] for the server, [`ClientConfig`] for the commands that call one. One table (`settings.rs`) names each setting
//! with its meaning, range and default, and drives the file's keys, the `VISAGE_*` variables, the flags and the documentation.
//!
//! The environment comes in as a map, so that tests never touch that of their process.

mod environment;
mod error;
mod render;
mod resolve;
mod serve;
mod settings;
mod value;

pub use environment::{ClientConfig, DEFAULT_SERVER, Environment, HubConfig};
pub(crate) use error::edit_distance;
pub use error::{Error, Source, Stated};
pub use render::markdown_table;
pub use resolve::{Flags, Resolved, load};
pub use serve::{Device, EventDirectory, LogFormat, LogLevel, Precision, ServeConfig};
pub use settings::{SETTINGS, Setting};

#[cfg(test)]
mod tests;
