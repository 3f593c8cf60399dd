//! Assignment of images to splits, and the order of an epoch. Both are pure functions of their
//! arguments.

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore, SeedableRng},
};
use sha2::{Digest, Sha256};

use super::Error;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Split {
    Train,
    /// Selects the best epoch and decides about early stopping.
    Val,
    /// Measures the trained model once.
    Test,
}

impl Split {
    pub(crate) const ALL: [Self; 3] = [Self::Train, Self::Val, Self::Test];

    #[must_use]
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Val => "val",
            Self::Test => "test",
        }
    }
}

/// Images that stay in one split where the server assigns the splits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum SplitGrouping {
    /// Byte-identical ones, at no cost: the split follows from the content.
    #[default]
    Exact,
    /// Also near-duplicates up to [`super::DEFAULT_NEAR_DISTANCE`]; every image is decoded for it.
    Near,
}

/// Shares of the images for validation and test where the server assigns the splits; the rest is
/// for training.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct SplitFractions {
    /// 0 to 1. Default 0.1.
    pub val: f64,
    /// 0 to 1. Default 0.1.
    pub test: f64,
}

impl Default for SplitFractions {
    fn default() -> Self {
        Self {
            val: 0.1,
            test: 0.1,
        }
    }
}

impl SplitFractions {
    pub(super) fn validate(self) -> Result<(), Error> {
        let is_share = |share: f64| (0.0..=1.0).contains(&share);
        if is_share(self.val) && is_share(self.test) && self.val + self.test < 1.0 {
            return Ok(());
        }
        Err(Error::Option {
            name: "split",
            found: format!("val {} and test {}", self.val, self.test),
            expected: "shares of 0 to 1 that leave some images for training",
        })
    }

    /// Returns the split of an image by its content and the seed alone; for images that stay
    /// together the caller passes the content of one of them.
    ///
    /// The first eight bytes of SHA-256(seed as 8 bytes little-endian, SHA-256 of the file) are a
    /// fraction of 2^64, big-endian. Below `val` it is validation, then test up to `val + test`.
    /// Adding or removing an image moves no other one.
    pub(super) fn assign(self, seed: u64, content_hash: &[u8; 32]) -> Split {
        let key: [u8; 32] = Sha256::new()
            .chain_update(seed.to_le_bytes())
            .chain_update(content_hash)
            .finalize()
            .into();
        let mut first = [0; 8];
        first.copy_from_slice(&key[..8]);
        let fraction = u64::from_be_bytes(first) as f64 / 2.0_f64.powi(64);
        if fraction < self.val {
            Split::Val
        } else if fraction < self.val + self.test {
            Split::Test
        } else {
            Split::Train
        }
    }
}

/// Returns the order in which epoch `epoch` visits the `n` samples of a shard: every index once,
/// equal for equal arguments.
///
/// A resumed training needs only the seed, the epoch and the batch. The shuffle is implemented
/// here, over the ChaCha stream with 8 rounds whose key is the seed, the epoch and the shard (8
/// bytes each, little-endian, then zeros), so that no update of a library changes the order under a
/// checkpoint.
///
/// # Panics
/// If `n` is above `u32::MAX`; [`super::load`] never returns that many samples.
#[must_use]
pub(crate) fn epoch_order(n: usize, seed: u64, epoch: u64, shard: u64) -> Vec<u32> {
    let count = u32::try_from(n).expect("a dataset has at most u32::MAX samples");
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&epoch.to_le_bytes());
    key[16..24].copy_from_slice(&shard.to_le_bytes());
    let mut random = ChaCha8Rng::from_seed(key);
    let mut order: Vec<u32> = (0..count).collect();
    for last in (1..order.len()).rev() {
        // The upper half of the product is uniform over 0..=last up to a bias of last / 2^64.
        let choices = last as u128 + 1;
        let chosen = (u128::from(random.next_u64()) * choices) >> 64;
        order.swap(last, chosen as usize);
    }
    order
}
