//! TensorBoard event files: a directory for each training, a file for each start of its process.
//!
//! They repeat data of the store for comparing many runs. A failure to write one costs a warning,
//! never the training. An epoch is written after it is durable in the store. Every file but the
//! first starts with a session start, at which TensorBoard discards the epochs that are repeated.

mod event_files;
mod record;

pub(super) use self::event_files::EventFiles;
