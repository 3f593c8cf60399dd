//! The commands: one file or directory each, with its arguments and one `run`.

pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod data;
pub(crate) mod dataset;
pub(crate) mod evaluate;
pub(crate) mod follow_view;
pub(crate) mod info;
pub(crate) mod log_level;
pub(crate) mod man;
pub(crate) mod models;
pub(crate) mod predict;
pub(crate) mod serve;
pub(crate) mod servers;
pub(crate) mod sweep;
pub(crate) mod synth;
pub(crate) mod token;
pub(crate) mod top;
pub(crate) mod train;
pub(crate) mod trainings;
pub(crate) mod watch;
pub(crate) mod worker;
