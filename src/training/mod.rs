//! Trainings: from a client's spec to a checkpoint, in a separate process.
//!
//! - [`spec`]: the checked spec. [`estimate`]: memory and disk that it needs; [`resources`]: memory
//!   and disk that are available.
//! - [`supervisor`]: the queue and the worker processes; runs in the server. `tensorboard`: event
//!   files.
//! - [`worker`]: the process of one training. `protocol` and `control`: its connection to the
//!   server. `weight_sources`: places of initial weights.
//! - `feature_loader` provides the batches of an epoch from `data_loader` or `feature_cache`.
//!   `loss`, `optimizer`, `parameters`, `schedule` and `shards` make a training step; `metric` and
//!   `early_stopping` judge an epoch.

mod control;
mod data_loader;
mod early_stopping;
pub(crate) mod estimate;
mod feature_cache;
mod feature_loader;
mod loss;
mod metric;
mod optimizer;
mod parameters;
mod protocol;
mod ranks;
pub(crate) mod resources;
mod schedule;
mod shards;
pub(crate) mod spec;
pub(crate) mod supervisor;
mod tensorboard;
mod timing;
mod weight_sources;
pub(crate) mod worker;
