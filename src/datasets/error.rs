//! Errors of named datasets.

use std::io;

use crate::{dataset, disk::DiskLow, store};

/// A failure of the registry. Failures of an archive are stored in its dataset.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error(transparent)]
    Path(dataset::Error),
    /// An age pattern or columns that an older version accepted.
    #[error("{0}")]
    Reading(String),
    #[error(
        "upload {upload:?} does not exist; it may have expired, or was deleted with its dataset"
    )]
    NoUpload { upload: String },
    #[error("upload {upload} is being unpacked into {dataset}; delete the dataset to remove both")]
    InUse { upload: String, dataset: String },
    #[error("upload {upload} has {offset} of {length} bytes; send the rest first")]
    Incomplete {
        upload: String,
        offset: u64,
        length: u64,
    },
    #[error("upload {upload} must continue at byte {offset}, got {given}")]
    WrongOffset {
        upload: String,
        offset: u64,
        given: u64,
    },
    #[error("upload {upload} must have {length} bytes as announced, got more")]
    TooLong { upload: String, length: u64 },
    #[error(
        "an upload must have 1 to {limit} bytes (max_upload_bytes of the server), got {length}"
    )]
    UploadSize { length: u64, limit: u64 },
    #[error(transparent)]
    DiskLow(#[from] DiskLow),
    #[error(
        "the uploaded datasets have {used} bytes, and at most {limit} are allowed (max_dataset_bytes of the server); delete datasets that are not needed"
    )]
    QuotaUsed { used: u64, limit: u64 },
    #[error(
        "{limit} uploads {}exist, which is the limit; create datasets from them, delete some, or wait until they expire",
        if *of_client { "of this client " } else { "" }
    )]
    TooManyUploads {
        limit: usize,
        /// The limit of one client, not of all.
        of_client: bool,
    },
    #[error("another request writes to upload {upload}; request its offset again in a moment")]
    Busy { upload: String },
    #[error("{dataset} has {samples} samples; the index must be lower, got {index}")]
    NoSample {
        dataset: String,
        index: usize,
        samples: usize,
    },
    #[error("failed to read or write the files of datasets: {0}")]
    Io(#[from] io::Error),
}
