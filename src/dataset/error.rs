//! Errors of loading a dataset.

use std::{
    io,
    path::{Path, PathBuf},
};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("failed to use the dataset root {path}: {source}")]
    Root { path: PathBuf, source: io::Error },
    #[error(
        "this server does not read paths of its disk; upload the files, or set {setting} of the server to the directories that clients may read"
    )]
    NoRoots { setting: &'static str },
    #[error("{path} did not respond within {seconds} seconds; check the file system of the server")]
    NoResponse { path: String, seconds: u64 },
    #[error(
        "{path:?} is outside the allowed directories ({setting}): {roots}; move it there, or add its directory to {setting} of the server"
    )]
    OutsideRoots {
        path: String,
        roots: String,
        setting: &'static str,
    },
    #[error(
        "no such file or directory on the server: {path}{}",
        searched(path, setting, roots)
    )]
    NotFound {
        path: String,
        roots: String,
        setting: &'static str,
    },
    #[error("{path} must be a directory of images or a .csv or .tsv manifest")]
    NotADataset { path: PathBuf },
    #[error("{path} holds both manifest.csv and manifest.tsv; name the one to use as the dataset")]
    AmbiguousManifest { path: PathBuf },
    #[error("the split of {path} is ambiguous: {problem}")]
    AmbiguousSplit { path: PathBuf, problem: String },
    #[error("failed to read the manifest {path}: {reason}")]
    Manifest { path: PathBuf, reason: String },
    #[error(
        "the manifest {path} has no column {missing}; its columns are: {found}; name the column with --column {example} (columns of the dataset in the API)"
    )]
    MissingColumns {
        path: PathBuf,
        /// With the accepted spellings.
        missing: String,
        found: String,
        /// An assignment of the missing columns, such as `age=years`.
        example: String,
    },
    #[error(
        "{path} is a manifest, which gives the ages in a column; leave age_pattern out, or use a directory without a manifest"
    )]
    PatternOfManifest { path: PathBuf },
    #[error(
        "{path} is a directory without a manifest.csv or manifest.tsv, so it has no columns; leave columns out, or name the manifest itself"
    )]
    ColumnsOfDirectory { path: PathBuf },
    #[error("the dataset option {name} must be {expected}, got {found}")]
    Option {
        name: &'static str,
        found: String,
        expected: &'static str,
    },
    #[error("{path} holds more than {limit} images; use a smaller directory or raise max_images")]
    TooManyImages { path: PathBuf, limit: usize },
    #[error(
        "{path} holds {images} images, and a search for near-duplicates compares at most {limit}; {}",
        match for_split {
            true => "set split_grouping to EXACT, or use a smaller dataset",
            false => "set skip_near_duplicates, or use a smaller dataset",
        }
    )]
    TooManySearched {
        path: PathBuf,
        images: usize,
        limit: usize,
        /// True if the search decides about splits, false if it is for the report.
        for_split: bool,
    },
    #[error(
        "{path} holds no usable image ({ignored} other files were ignored); expected images whose names begin with the age, like 34_1_0.jpg, or a manifest.csv with the columns path and age{}",
        skipped.iter().map(|sentence| format!("; {sentence}")).collect::<String>()
    )]
    Empty {
        path: PathBuf,
        /// Files that are not images.
        ignored: u64,
        /// Sentences about the ignored files that may have been meant as images.
        skipped: Vec<String>,
    },
    #[error(
        "{rejected} of {considered} images in {path} cannot be used, more than the allowed share of {limit}: {reasons}"
    )]
    TooManyRejects {
        path: PathBuf,
        rejected: u64,
        considered: u64,
        limit: f64,
        reasons: String,
    },
    #[error("{path} leaves {found} of {usable} images for training; at least 2 are needed")]
    TooFewTraining {
        path: PathBuf,
        found: usize,
        usable: usize,
    },
    #[error("{path} leaves none of {usable} images for validation; {remedy}")]
    NoValidation {
        path: PathBuf,
        usable: usize,
        /// The way to get a validation split, which depends on the origin of the splits.
        remedy: &'static str,
    },
    #[error("failed to read the dataset: {0}")]
    Io(#[from] io::Error),
    #[error("reading the dataset was cancelled")]
    Cancelled,
}

/// The directories in which a relative path was searched.
fn searched(path: &str, setting: &str, roots: &str) -> String {
    match Path::new(path).is_absolute() {
        true => String::new(),
        false => format!("; searched in the allowed directories ({setting}): {roots}"),
    }
}
