//! Resumable uploads of archives: each is a file that grows as bytes arrive, and a metadata file
//! with the total length.
//!
//! The length of the file is the offset of the upload, so it survives a crash of the server. Bytes
//! that were not on disk at a power loss are requested again.

mod directory;
mod list;
mod scope;
mod writer;

pub(crate) use self::{
    directory::{Upload, Uploads},
    list::ListedUpload,
    scope::Scope,
    writer::Writer,
};
