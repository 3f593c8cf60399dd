//! Options of the supervisor.

use std::{path::PathBuf, time::Duration};

use crate::{imaging::Limits, proto::worker_v1, telemetry::traces::Traces};

#[derive(Debug, Clone)]
pub struct SupervisorOptions {
    /// Directory for the files of running trainings.
    pub work_dir: PathBuf,
    /// File that reserves space on the disk of the database.
    pub reserve_file: PathBuf,
    /// Directory for TensorBoard event files, with a subdirectory for each training; `None` to
    /// write none.
    pub event_directory: Option<PathBuf>,
    /// Command that precedes the worker's, such as `mpirun -np 4`.
    pub launcher: Vec<String>,
    /// Longest time between two heartbeats of a worker.
    pub heartbeat_timeout: Duration,
    /// Longest time without progress of a worker.
    pub progress_timeout: Duration,
    /// Time for a process to exit on request before it is killed.
    pub grace: Duration,
    /// Starts without a new full checkpoint before a training fails, unless its spec sets a limit.
    pub max_restarts: u32,
    /// Capacity of the queue.
    pub max_queued: usize,
    /// `cpu`, `cuda:N` or `auto`.
    pub device: String,
    /// CPU threads; 0 for all.
    pub threads: u32,
    /// Niceness of workers, 0 to 19; 20 selects the idle scheduling policy.
    pub nice: u32,
    /// Directories under which images may be read.
    pub data_roots: Vec<String>,
    /// Directories that are searched for named weights.
    pub weights_roots: Vec<String>,
    pub hub: worker_v1::HubAccess,
    /// Limits on one image.
    pub limits: Limits,
    /// Exports the spans of trainings that a traced request started.
    pub traces: Traces,
}
