//! Record of the images that a model was trained on: the first 8 bytes of the SHA-256 of each image
//! file, so that evaluations can count the images that they have in common with the training.
//!
//! The record contains no image and no name. It covers the images of the training split, whether or
//! not one was readable, and those of all models that the initial weights were trained from.
//! Validation images, which select the epoch, are not part of it. Two different images have the
//! same 8 bytes with a probability of 5e-20.
//!
//! # Format
//!
//! All numbers are little-endian.
//!
//! | Bytes | Content |
//! |---|---|
//! | 8 | `VISAGETI` |
//! | 4 | format version, 1 |
//! | 4 | bytes of each hash, 8 |
//! | 8 | number of hashes |
//! | 8 each | hashes in ascending order of their bytes, without repeats |
//!
//! Any other version, length or order is refused.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use super::Error;

/// Name of the record in a checkpoint.
pub(crate) const TRAINING_IMAGES_FILE: &str = "training-images.bin";

const MAGIC: &[u8; 8] = b"VISAGETI";
const FORMAT_VERSION: u32 = 1;
const HASH_BYTES: usize = 8;
const HEADER_BYTES: usize = 24;
/// Largest number of images in a record, twice that of a dataset; 160 MB.
const MAX_IMAGES: usize = 20_000_000;

/// Set of images.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TrainingImages {
    /// Ascending, without repeats.
    hashes: Vec<[u8; HASH_BYTES]>,
}

impl TrainingImages {
    /// Returns the set of images with these SHA-256 digests.
    pub(crate) fn of<'a>(images: impl IntoIterator<Item = &'a [u8; 32]>) -> Self {
        Self::sorted(images.into_iter().map(prefix).collect())
    }

    fn sorted(mut hashes: Vec<[u8; HASH_BYTES]>) -> Self {
        hashes.sort_unstable();
        hashes.dedup();
        TrainingImages { hashes }
    }

    /// Returns the images of both sets; `None` if they are too many for a record.
    pub(crate) fn union(&self, other: &Self) -> Option<Self> {
        let union = Self::sorted([self.hashes.as_slice(), other.hashes.as_slice()].concat());
        (union.hashes.len() <= MAX_IMAGES).then_some(union)
    }

    /// Returns true if the set has the image with this SHA-256 digest.
    pub(crate) fn contains(&self, image: &[u8; 32]) -> bool {
        self.hashes.binary_search(&prefix(image)).is_ok()
    }

    /// Counts the given images that the set has.
    pub(crate) fn count<'a>(&self, images: impl IntoIterator<Item = &'a [u8; 32]>) -> u64 {
        let images = images.into_iter();
        images.filter(|image| self.contains(image)).count() as u64
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + HASH_BYTES * self.hashes.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes.extend_from_slice(&(HASH_BYTES as u32).to_le_bytes());
        bytes.extend_from_slice(&(self.hashes.len() as u64).to_le_bytes());
        bytes.extend_from_slice(self.hashes.as_flattened());
        bytes
    }

    /// Parses the bytes of a record; `path` is for the error only.
    ///
    /// # Errors
    /// The record is damaged, or from a newer program.
    pub(crate) fn parse(bytes: &[u8], path: &Path) -> Result<Self, Error> {
        let refuse = |reason: String| Error::TrainingImages {
            path: path.to_owned(),
            reason,
        };
        let Some((header, body)) = bytes.split_at_checked(HEADER_BYTES) else {
            return Err(refuse(format!(
                "it must have at least {HEADER_BYTES} bytes, got {}",
                bytes.len()
            )));
        };
        let (magic, numbers) = header.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(refuse("it does not start with VISAGETI".to_owned()));
        }
        let (numbers, _) = numbers.as_chunks::<4>();
        let number = |index: usize| u32::from_le_bytes(numbers[index]);
        if number(0) != FORMAT_VERSION {
            return Err(refuse(format!(
                "its format version must be {FORMAT_VERSION}, got {}; update the program",
                number(0)
            )));
        }
        let count = u64::from(number(2)) | u64::from(number(3)) << 32;
        let (hashes, rest) = body.as_chunks::<HASH_BYTES>();
        let is_complete = hashes.len() as u64 == count && rest.is_empty();
        if number(1) as usize != HASH_BYTES || !is_complete || hashes.len() > MAX_IMAGES {
            return Err(refuse(format!(
                "it must have {count} hashes of {} bytes, got {} bytes",
                number(1),
                body.len()
            )));
        }
        if !hashes.is_sorted_by(|one, next| one < next) {
            return Err(refuse("its hashes are not in ascending order".to_owned()));
        }
        Ok(TrainingImages {
            hashes: hashes.to_vec(),
        })
    }

    /// Reads a record and verifies its SHA-256 in hex.
    ///
    /// # Errors
    /// The record is missing, damaged, or from a newer program.
    pub(crate) fn read(path: &Path, sha256: &str) -> Result<Self, Error> {
        let limit = (HEADER_BYTES + HASH_BYTES * MAX_IMAGES) as u64;
        let mut bytes = Vec::new();
        let file = fs_err::File::open(path)?;
        file.take(limit + 1).read_to_end(&mut bytes)?;
        let found = format!("{:x}", Sha256::digest(&bytes));
        if found != sha256 {
            return Err(Error::Checksum {
                path: path.display().to_string(),
                expected: sha256.to_owned(),
                found,
            });
        }
        Self::parse(&bytes, path)
    }
}

/// Returns the record in the directory of a weights file.
pub(crate) fn beside(weights: &Path) -> PathBuf {
    weights.with_file_name(TRAINING_IMAGES_FILE)
}

fn prefix(digest: &[u8; 32]) -> [u8; HASH_BYTES] {
    let mut prefix = [0; HASH_BYTES];
    prefix.copy_from_slice(&digest[..HASH_BYTES]);
    prefix
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A digest whose first bytes are the first bytes of `start`, and whose others are `rest`.
    fn digest(start: [u8; 8], rest: u8) -> [u8; 32] {
        let mut digest = [rest; 32];
        digest[..8].copy_from_slice(&start);
        digest
    }

    const LOW: [u8; 8] = [0, 0, 0, 0, 0, 0, 0, 9];
    const HIGH: [u8; 8] = [0xff, 1, 2, 3, 4, 5, 6, 7];

    /// Two hashes, written by hand.
    const BYTES: [u8; 40] = [
        b'V', b'I', b'S', b'A', b'G', b'E', b'T', b'I', // magic
        1, 0, 0, 0, // version
        8, 0, 0, 0, // bytes of a hash
        2, 0, 0, 0, 0, 0, 0, 0, // hashes
        0, 0, 0, 0, 0, 0, 0, 9, // the first
        0xff, 1, 2, 3, 4, 5, 6, 7, // the second
    ];

    fn parse(bytes: &[u8]) -> Result<TrainingImages, String> {
        TrainingImages::parse(bytes, Path::new("r.bin")).map_err(|error| error.to_string())
    }

    #[test]
    fn a_record_has_the_documented_bytes() {
        let images = [digest(HIGH, 1), digest(LOW, 2), digest(HIGH, 3)];
        let record = TrainingImages::of(&images);
        assert_eq!(record.to_bytes(), BYTES);
        assert_eq!(parse(&BYTES).unwrap(), record);
        let empty = TrainingImages::default();
        assert_eq!(parse(&empty.to_bytes()).unwrap(), empty);
        assert_eq!(empty.to_bytes().len(), 24);
    }

    #[test]
    fn a_set_contains_and_counts_images_by_their_first_eight_bytes() {
        let record = parse(&BYTES).unwrap();
        let other = digest([0, 0, 0, 0, 0, 0, 0, 8], 2);
        assert!(record.contains(&digest(LOW, 77)));
        assert!(!record.contains(&other));
        let images = [digest(LOW, 1), other, digest(HIGH, 1), digest(LOW, 2)];
        assert_eq!(record.count(&images), 3);
        assert_eq!(TrainingImages::default().count(&images), 0);
    }

    #[test]
    fn a_union_has_each_image_once() {
        let both = parse(&BYTES).unwrap();
        let middle = digest([7; 8], 0);
        let one = TrainingImages::of(&[digest(LOW, 5), middle]);
        let union = both.union(&one).unwrap();
        let expected = TrainingImages::of(&[digest(LOW, 0), middle, digest(HIGH, 0)]);
        assert_eq!(union, expected);
        assert_eq!(both.union(&TrainingImages::default()).unwrap(), both);
    }

    #[test]
    fn a_damaged_or_newer_record_is_refused() {
        let change = |index: usize, value: u8| {
            let mut bytes = BYTES;
            bytes[index] = value;
            parse(&bytes).unwrap_err()
        };
        let cases = [
            (change(0, b'v'), "does not start with VISAGETI"),
            (change(8, 2), "format version must be 1, got 2"),
            (change(12, 4), "2 hashes of 4 bytes, got 16 bytes"),
            (change(16, 3), "3 hashes of 8 bytes, got 16 bytes"),
            (
                parse(&BYTES[..23]).unwrap_err(),
                "at least 24 bytes, got 23",
            ),
            (parse(&BYTES[..39]).unwrap_err(), "got 15 bytes"),
        ];
        for (found, expected) in cases {
            assert!(found.contains(expected), "{found}");
            assert!(found.starts_with("failed to read r.bin: "), "{found}");
        }
        let swapped = [&BYTES[..24], &BYTES[32..], &BYTES[24..32]].concat();
        let repeated = [&BYTES[..32], &BYTES[24..32]].concat();
        for unsorted in [swapped, repeated] {
            let error = parse(&unsorted).unwrap_err();
            assert!(error.contains("not in ascending order"), "{error}");
        }
    }

    #[test]
    fn a_file_is_read_only_with_the_expected_digest() {
        let directory = tempfile::tempdir().unwrap();
        let path = beside(&directory.path().join("model.safetensors"));
        fs_err::write(&path, BYTES).unwrap();
        // By `printf '…' | sha256sum`.
        let sha256 = "2d9cc4774649d6901be297caa8ac33159073f1739abf7c4374ba55a4f1ea15d7";
        assert_eq!(
            TrainingImages::read(&path, sha256).unwrap(),
            parse(&BYTES).unwrap()
        );
        fs_err::write(&path, &BYTES[..32]).unwrap();
        let damaged = TrainingImages::read(&path, sha256).unwrap_err();
        assert!(damaged.to_string().contains("is damaged"), "{damaged}");
    }
}
