//! Images that wait for the engine.
//!
//! - `entry`: one image.
//! - `priority_queue`: the order in which images are computed.

mod entry;
mod priority_queue;

#[cfg(test)]
mod tests;

pub(super) use entry::{EntryResult, QueueEntry};
pub(super) use priority_queue::PriorityQueue;
