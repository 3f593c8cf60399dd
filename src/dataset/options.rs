//! How a dataset is read.

use std::{num::NonZeroUsize, thread};

use crate::imaging;

use super::{AgePattern, ColumnNames, Error, SplitFractions, SplitGrouping};

/// Largest distance of near-duplicates; beyond it, different people were linked.
pub(crate) const MAX_NEAR_DISTANCE: u32 = 40;

/// Options of [`super::load`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Options {
    /// Pattern that reads the age from the path of an image in a directory. Default: file names
    /// start with the age.
    pub age_pattern: Option<AgePattern>,
    /// Headings of a manifest's columns. Default: `path` or a synonym, `age`, `split`.
    pub columns: ColumnNames,
    /// Accepted ages. Default 0 to 120 years.
    pub ages: AgeRange,
    /// Sizes of the splits where the dataset has none. Default 0.1 and 0.1.
    pub split: SplitFractions,
    /// Seed of the splits where the dataset has none. Default 0.
    pub seed: u64,
    /// Images that stay in one split. Default: byte-identical ones.
    pub grouping: SplitGrouping,
    /// Reports near-duplicates up to this distance, at most [`MAX_NEAR_DISTANCE`]; every image is
    /// decoded for it. Default: none.
    pub near: Option<u32>,
    /// Largest accepted share of rejected images, 0 to 1. Default 0.2.
    pub max_reject_share: f64,
    /// Thoroughness of the scan. Default: headers.
    pub verify: Verify,
    /// Default: a training.
    pub purpose: Purpose,
    /// Limits of each image.
    pub limits: imaging::Limits,
    /// Threads of the scan. Default: one for each processor, at most eight.
    pub threads: NonZeroUsize,
    /// Runs these threads at the lowest priority. Default: no.
    pub background: bool,
    /// More images are refused before they are scanned. Default 10,000,000, at most `u32::MAX`.
    pub max_images: usize,
}

impl Default for Options {
    fn default() -> Self {
        let available = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        Self {
            age_pattern: None,
            columns: ColumnNames::default(),
            ages: AgeRange::default(),
            split: SplitFractions::default(),
            seed: 0,
            grouping: SplitGrouping::default(),
            near: None,
            max_reject_share: 0.2,
            verify: Verify::default(),
            purpose: Purpose::Training,
            limits: imaging::Limits::default(),
            threads: available.min(const { NonZeroUsize::new(8).expect("8 is not 0") }),
            background: false,
            max_images: 10_000_000,
        }
    }
}

impl Options {
    pub(super) fn validate(&self) -> Result<(), Error> {
        self.split.validate()?;
        let refuse = |name, found, expected| {
            Err(Error::Option {
                name,
                found,
                expected,
            })
        };
        if !(0.0..=1.0).contains(&self.max_reject_share) {
            let found = self.max_reject_share.to_string();
            return refuse("max_reject_share", found, "a share of 0 to 1");
        }
        let AgeRange { min, max } = self.ages;
        if !(min.is_finite() && max.is_finite() && min <= max) {
            let expected = "two finite numbers of years, the smaller first";
            return refuse("ages", format!("{min} to {max}"), expected);
        }
        if u32::try_from(self.max_images).is_err() {
            let found = self.max_images.to_string();
            return refuse("max_images", found, "at most 4294967295");
        }
        if let Some(near) = self.near.filter(|near| *near > MAX_NEAR_DISTANCE) {
            return refuse("near", near.to_string(), "a distance of at most 40");
        }
        Ok(())
    }
}

/// Thoroughness with which each image is checked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Verify {
    /// Format and dimensions; of a JPEG also that no image data is missing. Damage inside other
    /// formats is found by the training.
    #[default]
    HeaderOnly,
    /// Decodes the image, which takes several times as long.
    Decode,
    /// Decodes the image and computes its perceptual hash for the search for near-duplicates.
    Fingerprint,
}

/// Use of a dataset, which decides what its splits must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// At least two images to train on and one to validate with.
    Training,
    /// At least one image, in any split.
    Evaluation,
    /// As [`Purpose::Evaluation`]; conditions that would fail a training, such as too many
    /// rejects, become warnings.
    Check,
}

/// Accepted ages in years, both ends included.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct AgeRange {
    pub min: f32,
    pub max: f32,
}

impl Default for AgeRange {
    fn default() -> Self {
        Self {
            min: 0.0,
            max: 120.0,
        }
    }
}

impl AgeRange {
    pub(super) fn contains(&self, age: f32) -> bool {
        (self.min..=self.max).contains(&age)
    }
}
