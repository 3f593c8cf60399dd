//! What can go wrong with datasets that have a name.

use std::io;

use crate::{dataset, store};

/// Failures of the library; those of an archive are told by the dataset itself.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The path cannot be registered.
    #[error(transparent)]
    Path(dataset::Error),
    /// The dataset's pattern or columns, which an older version may have accepted, cannot be used.
    #[error("{0}")]
    Reading(String),
    /// There is no such upload.
    #[error(
        "there is no upload {upload:?}; it may have been abandoned for too long: begin another one with POST /datasets/uploads on the HTTP port"
    )]
    NoUpload {
        /// The id as given.
        upload: String,
    },
    /// A dataset is being made of the upload.
    #[error("{dataset} is being made of the upload {upload}; delete the dataset to be rid of both")]
    Needed {
        /// Its id.
        upload: String,
        /// `datasets/{id}`.
        dataset: String,
    },
    /// Not all bytes of the upload are there.
    #[error("the upload {upload} has {offset} of {length} bytes; send the rest first")]
    Incomplete {
        /// Its id.
        upload: String,
        /// Bytes that are there.
        offset: u64,
        /// Bytes that were announced.
        length: u64,
    },
    /// The bytes that come would leave a gap, or write what is there again.
    #[error("the upload {upload} goes on at byte {offset}, not {given}")]
    WrongOffset {
        /// Its id.
        upload: String,
        /// Bytes that are there.
        offset: u64,
        /// Where the client wants to go on.
        given: u64,
    },
    /// More bytes come than were announced.
    #[error("the upload {upload} was announced with {length} bytes, and more come")]
    TooLong {
        /// Its id.
        upload: String,
        /// Bytes that were announced.
        length: u64,
    },
    /// The archive is larger than allowed.
    #[error(
        "an upload of {length} bytes is not allowed; 1 to {limit} are (max_upload_bytes of the server)"
    )]
    UploadSize {
        /// Bytes that were announced.
        length: u64,
        /// The limit.
        limit: u64,
    },
    /// As many uploads lie there as may.
    #[error(
        "{limit} uploads are not finished, which is the limit; make datasets of them, delete some, or wait until they expire"
    )]
    TooManyUploads {
        /// The limit.
        limit: usize,
    },
    /// Bytes of this upload come from elsewhere now.
    #[error("another request writes to the upload {upload}; ask for its offset again in a moment")]
    Busy {
        /// Its id.
        upload: String,
    },
    /// There is no such small image.
    #[error("{dataset} has {samples} samples, and none with the index {index}")]
    NoSample {
        /// `datasets/{id}`.
        dataset: String,
        /// The index as given, from 0.
        index: usize,
        /// How many there are.
        samples: usize,
    },
    /// The file system.
    #[error("the files of datasets cannot be read or written: {0}")]
    Io(#[from] io::Error),
}
