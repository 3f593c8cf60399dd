//! An image of a dataset.

use std::path::PathBuf;

use super::Labels;

#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Sample {
    /// Relative to the dataset, with `/` on every system.
    pub name: String,
    /// Absolute, with all links resolved; under an allowed root when it was scanned.
    pub path: PathBuf,
    /// In years.
    pub age: f32,
    /// Group labels from the name or the manifest.
    pub labels: Labels,
    /// Encoded size.
    pub bytes: u64,
    /// SHA-256 of the encoded bytes.
    pub content_hash: [u8; 32],
}
