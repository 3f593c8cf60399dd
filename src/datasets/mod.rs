//! Named datasets: directories of the server that were registered, and archives that were uploaded.
//!
//! A [`DatasetRegistry`] stores them. Guarantees:
//!
//! - A registered directory is never changed.
//! - An upload is written to disk as it arrives, and resumes after either side was killed
//!   ([`uploads`]).
//! - The content of an archive is not trusted: an entry outside the dataset, a link, a device, and
//!   more bytes or entries than allowed stop the unpacking with a sentence that names the entry
//!   ([`unpack`]).
//! - A dataset is complete or absent: it is unpacked into a temporary directory, made durable, and
//!   renamed into place. A server that was killed meanwhile starts again.
//! - One dataset at a time is unpacked or scanned, on threads of the lowest priority, and the queue
//!   is bounded.
//!
//! In the data directory, `uploads/` holds the uploads, `datasets/{id}-{random}/` the images of an
//! uploaded dataset, and `datasets/.samples/` thumbnails of every dataset.
//!
//! - `registry`: [`DatasetRegistry`], the operations of clients.
//! - `jobs`: unpacks and scans one dataset after the other.
//! - `summary`: statistics and samples of a dataset.
//! - `layout`: the directories, and their leftovers after a crash.

mod blocking;
mod error;
mod jobs;
mod layout;
mod registry;
mod summary;
#[cfg(test)]
mod tests;
pub(crate) mod unpack;
pub(crate) mod uploads;

pub(crate) use self::{
    error::Error,
    layout::upload_bytes,
    registry::{DatasetRegistry, Options, Properties},
};
