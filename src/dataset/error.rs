//! Why a data set cannot be used.

use std::io;
use std::path::PathBuf;

/// What is wrong with a data set or with the path that names it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A configured root does not exist or cannot be read.
    #[error("the dataset root {path} cannot be used: {source}")]
    Root {
        /// The root as configured.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// No root is configured, so no path can be allowed.
    #[error("this server allows no dataset directory; configure at least one dataset root")]
    NoRoots,
    /// The path leads outside the configured roots.
    #[error("{path:?} is outside of the allowed directories ({setting}): {roots}")]
    OutsideRoots {
        /// The path as the user wrote it.
        path: String,
        /// The allowed roots, separated by commas.
        roots: String,
        /// The setting that allows them.
        setting: &'static str,
    },
    /// Nothing is at the path.
    #[error("{path:?} does not exist in the allowed directories ({setting}): {roots}")]
    NotFound {
        /// The path as the user wrote it.
        path: String,
        /// The allowed roots, separated by commas.
        roots: String,
        /// The setting that allows them.
        setting: &'static str,
    },
    /// The path names neither a directory nor a manifest.
    #[error("{path} is neither a directory of images nor a .csv or .tsv manifest")]
    NotADataset {
        /// The resolved path.
        path: PathBuf,
    },
    /// A directory holds both kinds of manifest.
    #[error("{path} holds both manifest.csv and manifest.tsv; name the one to use as the dataset")]
    AmbiguousManifest {
        /// The directory.
        path: PathBuf,
    },
    /// The names of the parts can be understood in more than one way.
    #[error("the split of {path} is ambiguous: {problem}")]
    AmbiguousSplit {
        /// The directory or manifest.
        path: PathBuf,
        /// The names and the remedy.
        problem: String,
    },
    /// The manifest as a whole cannot be read.
    #[error("the manifest {path} cannot be read: {reason}")]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// What is wrong, with the line where there is one.
        reason: String,
    },
    /// The manifest lacks a column that is needed.
    #[error(
        "the manifest {path} has no column {missing}; its columns are: {found}; say which column it is with --column {example} (columns of the dataset in the API)"
    )]
    MissingColumns {
        /// The manifest.
        path: PathBuf,
        /// The missing columns with the accepted spellings.
        missing: String,
        /// The columns of the header, separated by commas.
        found: String,
        /// An assignment of the missing ones, such as `age=years`.
        example: String,
    },
    /// A pattern for file names, and ages in a column.
    #[error(
        "{path} is a manifest, which gives the ages in a column; leave age_pattern out, or name a directory without a manifest"
    )]
    PatternOfManifest {
        /// The manifest.
        path: PathBuf,
    },
    /// Names of columns, and no manifest.
    #[error(
        "{path} is a directory without a manifest.csv or manifest.tsv, so it has no columns; leave columns out, or name the manifest itself"
    )]
    ColumnsOfDirectory {
        /// The directory.
        path: PathBuf,
    },
    /// An option is out of its range.
    #[error("the dataset option {name} is {found}; expected {expected}")]
    Option {
        /// The option.
        name: &'static str,
        /// What it holds.
        found: String,
        /// What it may hold.
        expected: &'static str,
    },
    /// More images than one training may have.
    #[error("{path} holds more than {limit} images; use a smaller directory or raise max_images")]
    TooManyImages {
        /// The data set.
        path: PathBuf,
        /// The largest allowed number of images.
        limit: usize,
    },
    /// Not a single image with an age.
    #[error(
        "{path} holds no usable image ({ignored} other files were ignored); expected images whose names begin with the age, like 34_1_0.jpg, or a manifest.csv with the columns path and age{}",
        skipped.iter().map(|sentence| format!("; {sentence}")).collect::<String>()
    )]
    Empty {
        /// The data set.
        path: PathBuf,
        /// Files that are not images.
        ignored: u64,
        /// Sentences about those of them that may have been meant as images.
        skipped: Vec<String>,
    },
    /// More files were rejected than allowed.
    #[error(
        "{rejected} of {considered} images in {path} cannot be used, more than the allowed share of {limit}: {reasons}"
    )]
    TooManyRejects {
        /// The data set.
        path: PathBuf,
        /// How many were rejected.
        rejected: u64,
        /// How many were looked at.
        considered: u64,
        /// The allowed share, 0 to 1.
        limit: f64,
        /// The counts by reason with examples.
        reasons: String,
    },
    /// Too few images to train.
    #[error("{path} leaves {found} of {usable} images for training; at least 2 are needed")]
    TooFewTraining {
        /// The data set.
        path: PathBuf,
        /// Images in the training part.
        found: usize,
        /// Images in all parts.
        usable: usize,
    },
    /// No image to validate with.
    #[error("{path} leaves none of {usable} images for validation; {remedy}")]
    NoValidation {
        /// The data set.
        path: PathBuf,
        /// Images in all parts.
        usable: usize,
        /// How to get a validation part, given where the split came from.
        remedy: &'static str,
    },
    /// A directory cannot be listed or a file system call failed.
    #[error("the dataset cannot be read: {0}")]
    Io(#[from] io::Error),
    /// The caller asked to stop.
    #[error("reading the dataset was cancelled")]
    Cancelled,
}
