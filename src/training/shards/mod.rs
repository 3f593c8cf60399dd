//! Shards: parts of a batch with their own gradient and BatchNorm statistics.
//!
//! Each image belongs to one shard. All sums over shards have a fixed order, so that a training
//! with shards has the same result wherever its shards are computed.
//!
//! - `batches`: the images of each shard and step.
//! - `tree_sum`: sum of the gradients.
//! - `statistics`: running statistics of BatchNorms, updated by the statistics of all shards.

mod batches;
mod statistics;
mod tree_sum;

pub(super) use self::{batches::EpochBatches, statistics::RunningStatistics};

use self::tree_sum::TreeSum;

/// State of the steps of a training with shards.
#[derive(Debug)]
pub(super) struct Sharding {
    pub(super) gradients: TreeSum,
    pub(super) running: RunningStatistics,
}

impl Sharding {
    pub(super) fn new(running: RunningStatistics) -> Self {
        Sharding {
            gradients: TreeSum::default(),
            running,
        }
    }
}
