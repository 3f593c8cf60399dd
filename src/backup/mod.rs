//! Backups of data directories: taken beside a running server or of a stopped one, checked, and
//! restored.
//!
//! # Layout of a directory of backups
//!
//! ```text
//! content/ab/abcd…           files by their SHA-256, shared by all backups
//! backups/2026-11-30T12-00-00Z/
//!     visage.db              the database
//!     files.jsonl            path, SHA-256 and size of each other file, one JSON object a line
//!     backup.json            time, versions, and the digests of the other two
//! ```
//!
//! # Consistency
//!
//! The database is copied first, then the files that this copy names. Artifacts and uploaded
//! datasets never change, but a running server deletes those that are no longer needed. If one is
//! gone, the database is copied again, and what was copied already is kept. A file that the next
//! copy still names, and that is still gone, is damage of the data directory: the backup is
//! complete except for it, and reports it.
//!
//! A backup exists once its directory is renamed, after everything was synced. A killed backup
//! leaves content that the next one uses, and a directory that the next one removes.
//!
//! Artifacts are linked where possible, because nothing writes to them in place; other files are
//! copied, without using space where the file system shares it between copies.
//!
//! - `create`, `verify`, `restore`: the operations. `prune`: removal of old backups.
//! - `collect`: the files of a data directory.
//! - `content`: files by digest. `manifest`: `backup.json` and `files.jsonl`.

mod collect;
mod content;
mod create;
mod error;
mod manifest;
mod prune;
mod restore;
mod verify;

#[cfg(test)]
mod tests;

pub(crate) use self::{
    create::{Options, create},
    error::{Damage, Error},
    restore::restore,
    verify::verify,
};

/// Receives the bytes done, and all bytes if they are known.
pub(crate) type Progress<'a> = &'a mut (dyn FnMut(u64, Option<u64>) + Send);
