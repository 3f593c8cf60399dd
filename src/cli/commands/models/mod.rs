//! `visage models`: lists, shows, registers and exports model versions, and moves aliases.

mod args;
mod export;
mod list;
mod run;

pub(crate) use args::Command;
pub(crate) use run::run;
