//! The images of each shard and step of an epoch.

use std::ops::Range;

use crate::dataset::epoch_order;

/// The division of an epoch into steps and shards: image i of the training list belongs to shard i
/// modulo the number of shards, and each step takes an equal number of images of every shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EpochBatches {
    /// Number of training images.
    pub(crate) images: usize,
    pub(crate) shards: usize,
    /// Images of all shards in a step; a multiple of `shards`.
    pub(crate) batch_size: usize,
    pub(crate) seed: u64,
    /// From 1.
    pub(crate) epoch: u32,
}

impl EpochBatches {
    /// Returns the batches of the steps after `position` images, for each step those of the given
    /// shards in order. In the last step some may be smaller than others, or empty.
    pub(crate) fn after(&self, position: usize, shards: Range<usize>) -> Vec<Vec<u32>> {
        let size = self.batch_size / self.shards;
        let first = position.div_ceil(self.shards);
        let orders: Vec<Vec<u32>> = shards.map(|shard| self.order(shard)).collect();
        // The first shard of all has the most images.
        let steps = self
            .images
            .div_ceil(self.shards)
            .saturating_sub(first)
            .div_ceil(size);
        let batch = |step: usize, order: &Vec<u32>| {
            let start = (first + step * size).min(order.len());
            order[start..order.len().min(start + size)].to_vec()
        };
        (0..steps)
            .flat_map(|step| orders.iter().map(move |order| batch(step, order)))
            .collect()
    }

    /// Returns the images of a shard in the order of the epoch.
    fn order(&self, shard: usize) -> Vec<u32> {
        let count = self.images.saturating_sub(shard).div_ceil(self.shards);
        let mut order = epoch_order(count, self.seed, u64::from(self.epoch), shard as u64);
        for image in &mut order {
            *image = *image * self.shards as u32 + shard as u32;
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(images: usize, shards: usize, batch_size: usize) -> EpochBatches {
        EpochBatches {
            images,
            shards,
            batch_size,
            seed: 42,
            epoch: 3,
        }
    }

    #[test]
    fn one_shard_takes_the_images_in_the_order_of_the_epoch() {
        let batches = epoch(10, 1, 4).after(0, 0..1);
        let order = epoch_order(10, 42, 3, 0);
        let expected: Vec<Vec<u32>> = order.chunks(4).map(<[u32]>::to_vec).collect();
        assert_eq!(batches, expected);
        assert_eq!(epoch(10, 1, 4).after(8, 0..1), expected[2..]);
        assert!(epoch(10, 1, 4).after(10, 0..1).is_empty());
    }

    #[test]
    fn each_image_is_taken_once_by_its_shard() {
        let batches = epoch(22, 4, 8).after(0, 0..4);
        let lengths: Vec<usize> = batches.iter().map(Vec::len).collect();
        assert_eq!(lengths, [2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1]);
        for (index, batch) in batches.iter().enumerate() {
            assert!(batch.iter().all(|image| *image as usize % 4 == index % 4));
        }
        let mut images: Vec<u32> = batches.concat();
        images.sort_unstable();
        assert_eq!(images, (0..22).collect::<Vec<u32>>());
    }

    #[test]
    fn some_shards_or_a_later_position_give_the_same_batches() {
        let epoch = epoch(21, 4, 8);
        let all = epoch.after(0, 0..4);
        for shards in [0..2, 2..4, 1..2] {
            let own = epoch.after(0, shards.clone());
            let expected: Vec<Vec<u32>> = all
                .chunks(4)
                .flat_map(|step| step[shards.clone()].to_vec())
                .collect();
            assert_eq!(own, expected);
        }
        assert_eq!(epoch.after(8, 0..4), all[4..]);
        assert_eq!(epoch.after(16, 0..4), all[8..]);
        assert!(epoch.after(21, 0..4).is_empty());
    }

    #[test]
    fn shards_without_images_have_empty_batches() {
        let batches = epoch(2, 4, 16).after(0, 0..4);
        let lengths: Vec<usize> = batches.iter().map(Vec::len).collect();
        assert_eq!(lengths, [1, 1, 0, 0]);
    }
}
