//! `visage trainings`: lists, shows, controls and deletes trainings, and downloads checkpoints.

mod args;
mod compare;
mod download;
mod list;
mod run;

pub(crate) use args::Command;
pub(crate) use run::run;
