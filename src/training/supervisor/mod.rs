//! The queue of trainings and the worker processes that run them.
//!
//! The store alone holds the state of a training; every transition is decided inside a transaction.
//! A worker process is never trusted: its exit, a signal, an invalid message, missing heartbeats
//! and missing progress each lead to a recorded state with a stop reason.
//!
//! - `handle`: requests of clients; [`Supervisor`]. `state`: the state machine.
//! - `scheduler`: recovery, then one training after the other. `context`: what all parts share.
//! - `attempt`: one start of a process, which `prepare` begins, `follow` supervises through
//!   `process` and `watchdog`, `record` makes durable, and `disposition` concludes.
//! - `finish`, `restart` and `resume`: the end of a training, or its next start.
//! - `live`: files of the live version, which a worker compares its result with.
//! - `orphans`: processes of an earlier server. `disk_state`, `disk_watch`, `reserve`, `cleanup`:
//!   disk space.
//! - `metrics`, `spans`, `worker_log`: telemetry.

mod attempt;
mod cleanup;
mod context;
mod disk_state;
mod disk_watch;
mod disposition;
mod error;
mod finish;
mod follow;
mod handle;
mod live;
mod metrics;
mod options;
mod orphans;
mod prepare;
mod process;
mod publisher;
mod record;
mod reserve;
mod restart;
mod resume;
mod scheduler;
mod spans;
mod state;
mod watchdog;
mod worker_log;

pub(crate) use self::{
    context::ProgressReports,
    error::Error,
    handle::Supervisor,
    options::SupervisorOptions,
    process::Processes,
    publisher::{PublishError, Publisher},
};
