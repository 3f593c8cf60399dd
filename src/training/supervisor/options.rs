//! Options of the supervisor.

use std::{path::PathBuf, time::Duration};

use crate::{
    disk::Disk, imaging::Limits, proto::worker_v1, store::TrainingLimits, telemetry::traces::Traces,
};

use super::process::Processes;

#[derive(Debug, Clone)]
pub(crate) struct SupervisorOptions {
    /// Directory for the files of running trainings.
    pub(crate) work_dir: PathBuf,
    /// File that reserves space on the disk of the database.
    pub(crate) reserve_file: PathBuf,
    /// Directory for TensorBoard event files, with a subdirectory for each training; `None` to
    /// write none.
    pub(crate) event_directory: Option<PathBuf>,
    /// Command that precedes the worker's, such as `mpirun -np 4`.
    pub(crate) launcher: Vec<String>,
    pub(crate) ranks: Processes,
    /// Longest time between two heartbeats of a worker.
    pub(crate) heartbeat_timeout: Duration,
    /// Longest time without progress of a worker.
    pub(crate) progress_timeout: Duration,
    /// Time for a process to exit on request before it is killed.
    pub(crate) grace: Duration,
    /// Starts without a new full checkpoint before a training fails, unless its spec sets a limit.
    pub(crate) max_restarts: u32,
    /// The queue's, and of all trainings.
    pub(crate) max_trainings: TrainingLimits,
    /// Of the data directory.
    pub(crate) disk: Disk,
    /// `cpu`, `cuda:N` or `auto`.
    pub(crate) device: String,
    /// CPU threads; 0 for all.
    pub(crate) threads: u32,
    /// Niceness of workers, 0 to 19; 20 selects the idle scheduling policy.
    pub(crate) nice: u32,
    /// Directories under which images may be read.
    pub(crate) data_roots: Vec<String>,
    /// Directories that are searched for named weights.
    pub(crate) weights_roots: Vec<String>,
    pub(crate) hub: worker_v1::HubAccess,
    /// Limits on one image.
    pub(crate) limits: Limits,
    /// Exports the spans of trainings that a traced request started.
    pub(crate) traces: Traces,
}
