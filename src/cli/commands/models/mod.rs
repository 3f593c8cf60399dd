//! `visage models`: lists, shows, registers, exports and deletes model versions, and moves aliases.

mod aliases;
mod args;
mod delete;
mod export;
mod list;
mod run;

pub(crate) use args::Command;
pub(crate) use run::run;

use crate::cli::error::Error;

/// A response without its version.
fn missing_version() -> Error {
    Error::Contract("the response has no model version".to_owned())
}
