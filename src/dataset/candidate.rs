//! Images before and after the scan.

use std::path::PathBuf;

use super::{
    LeftOutColumns, Skipped, Split,
    fingerprint::Fingerprint,
    labels::Labels,
    report::{RejectReason, Rejects},
};

/// An image that a directory or a manifest names, before it is opened.
#[derive(Debug)]
pub(super) struct Candidate {
    /// Relative to the dataset, with `/`.
    pub(super) name: String,
    /// Absolute, links not resolved.
    pub(super) path: PathBuf,
    pub(super) age: f32,
    pub(super) labels: Labels,
    pub(super) split: Option<Split>,
    /// True if the name leaves open whether the file is an image.
    pub(super) by_content: bool,
}

/// Contents of a directory or a manifest. The candidates are sorted by name.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) candidates: Vec<Candidate>,
    pub(super) rejects: Rejects,
    /// Files that are not images.
    pub(super) ignored: u64,
    /// The ignored files that may have been meant as images.
    pub(super) skipped: Skipped,
    /// True if the dataset assigns the candidates to splits.
    pub(super) split_given: bool,
    /// Columns that are not used as labels.
    pub(super) left_out_columns: LeftOutColumns,
    pub(super) warnings: Vec<String>,
    /// Sentences about how ages or text were read: warnings, and the explanation of a refusal.
    pub(super) doubts: Vec<String>,
}

/// An image that can be used.
#[derive(Debug, Clone)]
pub(super) struct Scanned {
    /// With all links resolved, and under a root.
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
    pub(super) content_hash: [u8; 32],
    /// `None` also for an image without contrast.
    pub(super) fingerprint: Option<Fingerprint>,
}

pub(super) type Outcome = Result<Scanned, RejectReason>;
