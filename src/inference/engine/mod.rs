//! The inference engine: one thread that owns the loaded models and computes batches.
//!
//! Every forward pass runs on that thread: libtorch keeps a thread pool for each thread that
//! computes, and two pools on the same cores slow each other down. Only the loader, which prepares
//! a model, computes elsewhere, on one thread. Batching is work-conserving: the thread takes what
//! is queued, up to the largest batch, and never waits for more.
//!
//! - `handle`: the handle that predictions use.
//! - `thread`: the loop. `command`: what reaches it. `batch`: the input of a forward pass.
//!   `in_flight`: a batch until its results.
//! - `resident`: the models that are loaded.
//! - `loader`: the thread that loads models. `requeue`: the thread that resubmits images whose
//!   model was evicted while they waited.

mod batch;
mod command;
mod handle;
mod in_flight;
mod loader;
mod requeue;
mod resident;
mod thread;

#[cfg(test)]
mod tests;

pub(crate) use handle::{Engine, EngineOptions};
