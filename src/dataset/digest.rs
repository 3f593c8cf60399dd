//! Digest that identifies a dataset.

use sha2::{Digest, Sha256};

use super::{Sample, Split};

/// Returns the SHA-256 in hex over the samples of all `splits`, sorted by name.
///
/// For each sample: the length of its name in bytes (8 bytes, little-endian), the name, the 32
/// bytes of its content hash, the age (f32, little-endian) and a byte for its split (0 train, 1
/// val, 2 test). The prefix is `visage-dataset-1` and a line feed.
pub(super) fn digest(splits: &[(Split, &[Sample])]) -> String {
    let mut samples: Vec<(Split, &Sample)> = splits
        .iter()
        .flat_map(|(split, samples)| samples.iter().map(|sample| (*split, sample)))
        .collect();
    samples.sort_unstable_by(|(_, one), (_, other)| one.name.cmp(&other.name));
    let mut hash = Sha256::new_with_prefix("visage-dataset-1\n");
    for (split, sample) in samples {
        hash.update((sample.name.len() as u64).to_le_bytes());
        hash.update(&sample.name);
        hash.update(sample.content_hash);
        hash.update(sample.age.to_le_bytes());
        hash.update([match split {
            Split::Train => 0,
            Split::Val => 1,
            Split::Test => 2,
        }]);
    }
    format!("{:x}", hash.finalize())
}
