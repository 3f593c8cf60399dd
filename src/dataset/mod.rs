//! Where the images and their ages come from: a directory or a manifest becomes a checked, split, digested [`Dataset`].
//!
//! [`load`] takes either source:
//!
//! - **A directory** whose file names begin with the age (`34_1_0_20170103230340961.jpg.chip.jpg`, the names of UTKFace). With
//!   sub-directories such as `train`, `val` and `test` the split is theirs; without them every image is put into a part by its content.
//! - **A manifest**, a CSV or TSV file with the columns `path` and `age`, optionally `split`, and any further columns, which
//!   become labels where their values define groups. A directory that holds one `manifest.csv` or `manifest.tsv` is read through it.
//!
//! What it promises:
//!
//! - Every file is read once. It is hashed, and its header is checked against the limits; see [`Verify`].
//! - The result depends on the files, the seed and the fractions only, never on the order of the directory, the number of
//!   threads or the machine. The samples are sorted by name, and [`Dataset::digest`] tells two data sets apart.
//! - Byte-identical images land in the same part of a split that is made here. Where the directories or the manifest put them
//!   into different parts, they are counted and named in the report, and nothing is removed. Where [`Options`] ask for it the same holds for images that
//!   only look the same ([`SplitGrouping::Near`], [`Dataset::near`]).
//! - A file that cannot be used is counted by reason with a few names, and never silently skipped. Too many are an error.
//! - No file outside the allowed [`Roots`] is opened, whatever links and manifests say.
//!
//! Batches, augmentation and caches are the trainer's; this module decodes an image only for [`Verify::Decode`] and for what it looks like.

mod age_pattern;
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
mod load;
mod manifest;
mod manifest_path;
mod manifest_survey;
mod manifest_text;
mod message;
mod names;
mod near;
#[cfg(test)]
mod near_tests;
mod report;
mod roots;
mod scan;
mod skipped;
mod spec;
mod split;
mod split_directories;
mod split_names;
#[cfg(test)]
mod tests;

pub use self::age_pattern::AgePattern;
pub use self::columns::ColumnNames;
pub use self::error::Error;
pub use self::grouping::{NearGroup, NearMember};
pub use self::kind::{FileKind, HEAD_BYTES, file_kind, is_image_content};
pub use self::label_columns::{LeftOutColumn, LeftOutColumns, LeftOutReason};
pub use self::labels::Labels;
pub use self::load::{AgeRange, Dataset, Options, Phase, Purpose, Sample, check_source, load};
pub use self::message::{
    age_bands, column_names, dataset_report, left_out_columns, manifest_columns, split_name,
    split_origin,
};
pub use self::near::{DEFAULT_NEAR_DISTANCE, MAX_NEAR_DISTANCE};
pub use self::report::{
    AgeBand, AgeSummary, Duplicates, RejectCount, RejectReason, Report, Source, SplitOrigin,
    SplitReport,
};
pub use self::roots::Roots;
pub use self::scan::Verify;
pub use self::skipped::Skipped;
pub use self::spec::{DEFAULT_SEED, DatasetSpec};
pub use self::split::{Split, SplitFractions, SplitGrouping, epoch_order};
