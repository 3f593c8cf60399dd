//! Content-addressed store of large immutable files, such as the weights of checkpoints.
//!
//! An artifact with the digest `abcd…` is stored at `sha256/ab/abcd…` in the directory of the
//! store; nothing else names it, so the directory can be moved and equal bytes are stored once. The
//! database records which artifacts are in use; at the start of the server,
//! [`Artifacts::quarantine_unknown`] moves the others aside.
//!
//! # Guarantees
//!
//! - **Complete or absent.** Bytes are written to `incoming/`, synced, and renamed into place; a
//!   failure (also a full disk) leaves nothing, and the leftovers of a crash are removed when the
//!   directory is opened. Only one process may have a directory open.
//! - **Durable.** When a call that stores has returned, the artifact survives a power loss.
//!   `object_store` syncs neither files nor directories by default, so [`Artifacts::local`] enables
//!   `with_fsync`: it syncs the file before the rename, and each directory whose entries changed.
//! - **Verified.** Reading compares the bytes with the name and fails with [`Error::Corrupt`].
//! - **Repaired.** Storing existing bytes writes them again. That repairs a damaged copy without
//!   disturbing readers of the old file.
//!
//! A file is moved in after its writer has closed it, or copied from another file system. It
//! is never linked, because a link would share its bytes with a file that others can still write
//! to.
//!
//! - `store`: [`Artifacts`], opening it, looking up and deleting one artifact.
//! - `write`, `read`, `gc`, `check`: storing, reading, unreferenced artifacts, verification.
//! - `digest`: names of artifacts.

mod check;
mod digest;
mod error;
mod gc;
mod read;
mod store;
#[cfg(test)]
mod tests;
mod write;

pub(crate) use self::{
    digest::{Digest, hash_file},
    error::Error,
    store::{Artifacts, file_in},
};
