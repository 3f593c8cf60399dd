//! What follows from images that look the same: where a split puts them, and what is told of them.

use super::fingerprint::Fingerprint;
use super::load::Options;
use super::near::{DEFAULT_NEAR_DISTANCE, Search};
use super::scan::{Candidate, Scanned};
use super::{Error, Sample, Split, SplitGrouping};

/// How many images of a group a warning names.
const EXAMPLES: usize = 5;

/// Images that look the same and are not all byte-identical: each is within the distance of another one of the group. Sorted by name.
pub type NearGroup = Vec<NearMember>;

/// An image of a [`NearGroup`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NearMember {
    /// Its part.
    pub split: Split,
    /// Its place in the part.
    pub index: usize,
    /// In how many of 256 bits its perceptual hash differs from that of the first of the group.
    pub distance: u32,
    /// Whether it is the mirrored image that differs in so few.
    pub is_mirrored: bool,
}

/// Which near-duplicates are looked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct SearchPlan {
    /// To be kept in one part, at the default distance.
    for_split: bool,
    /// To be told of, up to a distance.
    to_tell: Option<u32>,
}

impl SearchPlan {
    pub(super) fn of(options: &Options, split_given: bool) -> Self {
        SearchPlan {
            for_split: options.grouping == SplitGrouping::Near && !split_given,
            to_tell: options.near,
        }
    }

    pub(super) fn is_any(self) -> bool {
        self.for_split || self.to_tell.is_some()
    }
}

/// Groups of images that look the same, as places among the accepted ones.
pub(super) struct NearDuplicates {
    for_split: Vec<Vec<usize>>,
    to_tell: Option<Vec<Vec<usize>>>,
    fingerprints: Vec<Option<Fingerprint>>,
}

impl NearDuplicates {
    pub(super) fn find(
        wanted: SearchPlan,
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
        let for_split = match wanted.for_split {
            true => search(DEFAULT_NEAR_DISTANCE)?,
            false => Vec::new(),
        };
        let to_tell = match wanted.to_tell {
            Some(DEFAULT_NEAR_DISTANCE) if wanted.for_split => Some(for_split.clone()),
            Some(distance) => Some(search(distance)?),
            None => None,
        };
        Ok(NearDuplicates {
            for_split,
            to_tell,
            fingerprints,
        })
    }

    /// What decides about the part of each image: its content, or the smallest content of its group, which does not depend on names.
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

    /// The groups to tell of, given where each image went.
    pub(super) fn into_near_groups(self, places: &[(Split, usize)]) -> Option<Vec<NearGroup>> {
        let NearDuplicates {
            to_tell,
            fingerprints,
            ..
        } = self;
        let near = |group: Vec<usize>| {
            let first = fingerprints[group[0]];
            let member = |index: usize| {
                let (split, place) = places[index];
                let both = first.zip(fingerprints[index]);
                let (distance, is_mirrored) =
                    // Without a fingerprint an image is in no group but for a twin with the same bytes, which has none either.
                    both.map_or((0, false), |(one, other)| one.distance(&other));
                NearMember {
                    split,
                    index: place,
                    distance,
                    is_mirrored,
                }
            };
            group.into_iter().map(member).collect()
        };
        Some(to_tell?.into_iter().map(near).collect())
    }
}

/// A sentence about near-duplicates in different parts, where there are any.
pub(super) fn warning(near: &[NearGroup], parts: &[(Split, &[Sample]); 3]) -> Option<String> {
    let straddles = |group: &&NearGroup| group.iter().any(|member| member.split != group[0].split);
    let first = near.iter().find(straddles)?;
    let names: Vec<String> = first
        .iter()
        .take(EXAMPLES)
        .map(|member| {
            let (split, samples) = parts[member.split as usize];
            format!("{}: {}", split.label(), samples[member.index].name)
        })
        .collect();
    Some(format!(
        "{} groups of images that look the same lie in different parts, so the validation or test error is a little too good; first: {}",
        near.iter().filter(straddles).count(),
        names.join(", ")
    ))
}
