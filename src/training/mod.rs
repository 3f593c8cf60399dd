//! Trainings: from a client's spec to a checkpoint, in a process of its own.
//!
//! In reading order:
//! - [`spec`]: what a client asks for, checked.
//! - [`supervisor`]: the queue, the child process and the recorded state; runs in the server.
//! - [`frames`]: what server and worker say to each other.
//! - [`worker`]: the child process; owns stdin, stdout and the signs of life.
//! - [`trainer`]: the loop over epochs. [`loader`] decodes ahead of it, [`flat`] holds parameters and Adam, [`evaluation`] the
//!   figures, [`early_stopping`] the verdict on an epoch.
//!
//! Training and inference never import each other: the registry joins them.

pub mod early_stopping;
pub mod evaluation;
pub mod flat;
pub mod frames;
pub mod loader;
pub mod process;
pub mod report;
pub mod spec;
pub mod supervisor;
pub mod trainer;
pub mod worker;
