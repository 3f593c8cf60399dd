//! Use of near-duplicates: groups that stay in one split, and groups that are reported.

use std::path::Path;

use super::{
    Error, Options, Sample, Split, SplitGrouping,
    candidate::{Candidate, Scanned},
    fingerprint::Fingerprint,
    near::{DEFAULT_NEAR_DISTANCE, Search},
};

/// Images of a group that a warning names.
const EXAMPLES: usize = 5;

/// Largest dataset that is searched for near-duplicates: the time grows with the square of the
/// number of images.
const MAX_SEARCHED: usize = 100_000;

/// Images that look the same without all being byte-identical: each is within the distance of
/// another one of the group. Sorted by name.
pub(crate) type NearGroup = Vec<NearMember>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NearMember {
    pub split: Split,
    /// Position in the split.
    pub index: usize,
    /// Number of 256 bits in which the perceptual hash differs from that of the group's first
    /// image.
    pub distance: u32,
    /// True if the distance is that of the mirrored image.
    pub is_mirrored: bool,
}

/// The searches for near-duplicates that the options require.
#[derive(Debug, Clone, Copy)]
pub(super) struct SearchPlan {
    /// At the default distance, to keep groups in one split.
    for_split: bool,
    /// At this distance, for the report.
    for_report: Option<u32>,
}

impl SearchPlan {
    pub(super) fn new(options: &Options, split_given: bool) -> Self {
        SearchPlan {
            for_split: options.grouping == SplitGrouping::Near && !split_given,
            for_report: options.near,
        }
    }

    pub(super) fn is_empty(self) -> bool {
        !self.for_split && self.for_report.is_none()
    }

    /// Refuses a dataset that is too large to be searched.
    pub(super) fn check_count(self, path: &Path, images: usize) -> Result<(), Error> {
        if self.is_empty() || images <= MAX_SEARCHED {
            return Ok(());
        }
        Err(Error::TooManySearched {
            path: path.to_path_buf(),
            images,
            limit: MAX_SEARCHED,
            for_split: self.for_split,
        })
    }
}

/// Groups of near-duplicates, by position among the accepted images.
pub(super) struct NearDuplicates {
    for_split: Vec<Vec<usize>>,
    for_report: Option<Vec<Vec<usize>>>,
    fingerprints: Vec<Option<Fingerprint>>,
}

impl NearDuplicates {
    pub(super) fn find(
        plan: SearchPlan,
        accepted: &[(Candidate, Scanned)],
        options: &Options,
        progress: &mut dyn FnMut(usize, usize),
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Self, Error> {
        let (fingerprints, contents): (Vec<_>, Vec<_>) = accepted
            .iter()
            .map(|(_, scanned)| (scanned.fingerprint, scanned.content_hash))
            .unzip();
        let mut search = |distance| {
            let search = Search {
                fingerprints: &fingerprints,
                contents: &contents,
                distance,
                threads: options.threads,
                background: options.background,
            };
            search.groups(progress, cancelled)
        };
        let for_split = match plan.for_split {
            true => search(DEFAULT_NEAR_DISTANCE)?,
            false => Vec::new(),
        };
        let for_report = match plan.for_report {
            Some(DEFAULT_NEAR_DISTANCE) if plan.for_split => Some(for_split.clone()),
            Some(distance) => Some(search(distance)?),
            None => None,
        };
        Ok(NearDuplicates {
            for_split,
            for_report,
            fingerprints,
        })
    }

    /// Returns the content hash that decides the split of each image: its own, or the smallest one
    /// of its group, which does not depend on names.
    pub(super) fn split_keys(&self, accepted: &[(Candidate, Scanned)]) -> Vec<[u8; 32]> {
        let mut keys: Vec<[u8; 32]> = accepted
            .iter()
            .map(|(_, scanned)| scanned.content_hash)
            .collect();
        for group in &self.for_split {
            let smallest = group.iter().map(|index| keys[*index]).min();
            for index in group {
                keys[*index] = smallest.unwrap_or(keys[*index]);
            }
        }
        keys
    }

    /// Returns the groups to report, given the position of each image in its split.
    pub(super) fn into_groups(self, positions: &[(Split, usize)]) -> Option<Vec<NearGroup>> {
        let fingerprints = self.fingerprints;
        let near = |group: Vec<usize>| {
            let first = fingerprints[group[0]];
            let member = |index: usize| {
                let (split, position) = positions[index];
                let both = first.zip(fingerprints[index]);
                // Without a fingerprint an image is grouped only with byte-identical ones, which
                // have none either.
                let (distance, is_mirrored) =
                    both.map_or((0, false), |(one, other)| one.distance(&other));
                NearMember {
                    split,
                    index: position,
                    distance,
                    is_mirrored,
                }
            };
            group.into_iter().map(member).collect()
        };
        Some(self.for_report?.into_iter().map(near).collect())
    }
}

/// Returns a sentence about near-duplicates in different splits, if there are any.
pub(super) fn warning(near: &[NearGroup], splits: &[(Split, &[Sample]); 3]) -> Option<String> {
    let straddles = |group: &&NearGroup| group.iter().any(|member| member.split != group[0].split);
    let first = near.iter().find(straddles)?;
    let names: Vec<String> = first
        .iter()
        .take(EXAMPLES)
        .map(|member| {
            let (split, samples) = splits[member.split as usize];
            format!("{}: {}", split.label(), samples[member.index].name)
        })
        .collect();
    Some(format!(
        "{} groups of images that look the same lie in different splits, so the validation or test error is slightly too low; first: {}",
        near.iter().filter(straddles).count(),
        names.join(", ")
    ))
}
