//! Trainings: from a client's spec to a checkpoint, in a process of its own.
//!
//! In reading order:
//! - [`spec`]: what a client asks for, checked. [`estimate`]: what it will need.
//! - [`supervisor`]: the queue, the child process and the recorded state; runs in the server.
//! - [`frames`]: what server and worker say to each other.
//! - [`worker`]: the child process; owns stdin, stdout and the signs of life.
//! - [`trainer`]: the loop over epochs; `session` makes one, and `failure` says why there is none. [`feed`] brings it batches, which [`loader`] decodes
//!   ahead of it or [`feature_cache`] has kept, [`flat`] holds parameters and Adam, [`early_stopping`] the
//!   verdict on an epoch. The figures are those of [`crate::evaluation`].
//!
//! Training and inference never import each other: the registry joins them.

mod adam_kernel;
pub mod early_stopping;
pub mod estimate;
mod failure;
pub mod feature_cache;
pub mod feed;
pub mod flat;
pub mod frames;
pub mod loader;
pub mod process;
pub mod report;
mod session;
pub mod spec;
pub mod supervisor;
pub mod trainer;
pub mod worker;

/// Does some work and adds the seconds that it took.
fn timed<T>(seconds: &mut f64, work: impl FnOnce() -> T) -> T {
    let begun = std::time::Instant::now();
    let result = work();
    *seconds += begun.elapsed().as_secs_f64();
    result
}
