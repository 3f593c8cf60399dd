//! Where the pictures and their ages come from: a folder or a manifest becomes a checked, split, digested [`Dataset`].
//!
//! [`load`] takes either source:
//!
//! - **A folder** whose file names begin with the age (`34_1_0_20170103230340961.jpg.chip.jpg`, the names of UTKFace). With
//!   the sub-folders `train`, `val` and `test` the split is theirs; without them every picture is put into a part by its content.
//! - **A manifest**, a CSV or TSV file with the columns `path` and `age`, optionally `split`, and any further columns, which
//!   become group labels. A folder that holds one `manifest.csv` or `manifest.tsv` is read through it.
//!
//! What it promises:
//!
//! - Every file is read once. It is hashed, and its header is checked against the limits; see [`Verify`].
//! - The result depends on the files, the seed and the fractions only, never on the order of the directory, the number of
//!   threads or the machine. The samples are sorted by name, and [`Dataset::digest`] tells two data sets apart.
//! - Byte-identical pictures land in the same part of a split that is made here. Where the folders or the manifest put them
//!   into different parts, they are counted and named in the report, and nothing is removed.
//! - A file that cannot be used is counted by reason with a few names, and never silently skipped. Too many are an error.
//! - No file outside the allowed [`Roots`] is opened, whatever links and manifests say.
//!
//! Batches, augmentation and caches are the trainer's; this module never decodes a picture unless [`Verify::Decode`] asks for it.

mod digest;
mod error;
mod folder;
mod labels;
mod load;
mod manifest;
mod names;
mod report;
mod roots;
mod scan;
mod split;
#[cfg(test)]
mod tests;

pub use self::error::Error;
pub use self::labels::Labels;
pub use self::load::{AgeRange, Dataset, Needs, Options, Sample, load};
pub use self::report::{
    AgeBand, AgeSummary, Duplicates, PartReport, RejectCount, RejectReason, Report, Source,
    SplitOrigin,
};
pub use self::roots::Roots;
pub use self::scan::Verify;
pub use self::split::{Part, SplitFractions, epoch_order};
