//! `visage serve`: resolves the settings and runs the server.

mod banner;
mod run;

pub(crate) use run::{Args, init_worker_logging, run};
