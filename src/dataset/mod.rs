//! Datasets: a directory or a manifest becomes a checked, split, digested [`Dataset`].
//!
//! [`load`] accepts two sources:
//!
//! - **A directory** whose file names start with the age (`34_1_0_20170103230340961.jpg.chip.jpg`,
//!   as in UTKFace). Sub-directories such as `train`, `val` and `test` are the splits; without them
//!   each image is assigned to a split by its content.
//! - **A manifest**, a CSV or TSV file with the columns `path` and `age`, optionally `split`, and
//!   further columns, which become labels where their values define groups. A directory with one
//!   `manifest.csv` or `manifest.tsv` is read through it.
//!
//! Guarantees:
//!
//! - Each file is read once. It is hashed, and its header is checked against the limits; see
//!   [`Verify`].
//! - The result depends on the files, the seed and the fractions only, not on the order of the
//!   directory, the number of threads or the machine. The samples are sorted by name, and
//!   [`Dataset::digest`] identifies the dataset.
//! - Where the server assigns the splits, byte-identical images are in the same split. Where the
//!   directories or the manifest put them into different splits, they are counted and named in the
//!   report, and nothing is removed. [`SplitGrouping::Near`] and [`Dataset::near`] do the same for
//!   near-duplicates.
//! - A file that cannot be used is counted by reason, with a few names, and never skipped silently.
//!   Too many are an error.
//! - No file outside the allowed [`Roots`] is opened, whatever links and manifests contain.
//!
//! Batches, augmentation and caches belong to the training; this module decodes an image only for
//! [`Verify::Decode`] and for its perceptual hash.

mod age_pattern;
mod candidate;
mod columns;
mod default_reading;
mod digest;
mod directory;
mod error;
mod fingerprint;
mod grouping;
mod kind;
mod label_columns;
mod labels;
mod left_out;
mod load;
mod manifest;
mod manifest_columns;
mod manifest_path;
mod manifest_survey;
mod manifest_text;
mod message;
mod names;
mod near;
mod options;
mod progress;
mod report;
mod roots;
mod sample;
mod scan;
mod skipped;
mod source;
mod spec;
mod split;
mod split_directories;
mod split_names;
#[cfg(test)]
mod tests;

pub(crate) use self::age_pattern::AgePattern;
pub(crate) use self::columns::ColumnNames;
pub(crate) use self::error::Error;
pub(crate) use self::grouping::{NearGroup, NearMember};
pub(crate) use self::kind::{FileKind, HEAD_BYTES, file_kind, is_image_content};
pub(crate) use self::labels::Labels;
pub(crate) use self::left_out::LeftOutColumns;
pub(crate) use self::load::{Dataset, load};
pub(crate) use self::message::{
    age_bands, column_names, dataset_report, left_out_columns, manifest_columns, split_name,
    split_origin,
};
pub(crate) use self::near::DEFAULT_NEAR_DISTANCE;
pub(crate) use self::options::{AgeRange, MAX_NEAR_DISTANCE, Options, Purpose, Verify};
pub(crate) use self::progress::Phase;
pub(crate) use self::report::{Report, Source, SplitOrigin, SplitReport};
pub(crate) use self::roots::Roots;
pub(crate) use self::sample::Sample;
pub(crate) use self::skipped::Skipped;
pub(crate) use self::source::check_source;
pub(crate) use self::spec::{DEFAULT_SEED, DatasetSpec};
pub(crate) use self::split::{Split, SplitFractions, SplitGrouping, epoch_order};
