//! Trainings: from a client's spec to a checkpoint, in a process of its own.
//!
//! In reading order:
//! - [`spec`]: what a client asks for, checked. [`estimate`]: what it will need, and [`machine`]: what there is.
//! - [`supervisor`]: the queue, the child process and the recorded state; runs in the server.
//! - [`frames`]: what server and worker say to each other.
//! - [`worker`]: the child process; owns stdin, stdout and the signs of life.
//! - [`trainer`]: the loop over epochs; `session` makes one, and `failure` says why there is none. [`feed`] brings it batches, which [`loader`] decodes
//!   ahead of it or [`feature_cache`] has kept. [`objective`] is what [`optimizer`] makes small by changing the parameters in [`flat`], at a pace that [`schedule`]
//!   sets. The figures are those of [`crate::evaluation`]; [`monitor`] says which of them counts, [`early_stopping`] gives the verdict on an epoch.
//! - `spans`: where the time went, for the trace of a training that is traced.
//! - [`full_checkpoint`]: what a later process needs to go on as if it were this one.
//!
//! Training and inference never import each other: the registry joins them.

pub mod early_stopping;
pub mod estimate;
mod failure;
pub mod feature_cache;
pub mod feed;
pub mod flat;
pub mod frames;
pub mod full_checkpoint;
pub mod loader;
pub mod machine;
pub mod monitor;
pub mod objective;
pub mod optimizer;
pub mod process;
pub mod schedule;
mod session;
mod spans;
pub mod spec;
pub mod supervisor;
pub mod trainer;
mod update_kernel;
pub mod worker;

/// Does some work and adds the seconds that it took.
fn timed<T>(seconds: &mut f64, work: impl FnOnce() -> T) -> T {
    let begun = std::time::Instant::now();
    let result = work();
    *seconds += begun.elapsed().as_secs_f64();
    result
}
