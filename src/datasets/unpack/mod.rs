//! Unpacking of untrusted archives: a zip, a tar or a gzipped tar becomes a directory, or an error
//! that names the refused entry.
//!
//! - Only regular files and directories are accepted, and their names must stay inside: no absolute
//!   path, no `..`, no control character. In a zip a backslash separates the components of a name
//!   as `/` does, and `names` decodes names without an encoding flag; all checks apply to the
//!   resulting components. A link, a device, anything else, or a second file of the same name
//!   refuses the whole archive.
//! - Sizes in an archive are not trusted: the unpacked bytes and the entries are counted.
//! - Memory does not depend on the archive: entries are read one at a time.
//! - Only files of a dataset are written: images, by their extension or else by their first bytes,
//!   and visible `.csv` and `.tsv` files. The others are counted as ignored, such as those that
//!   macOS adds (`__MACOSX`, `._*`).
//!
//! - `archive`: detects the format and unpacks.
//! - `names`: names of entries as text.
//! - `entry`: checks of names, and the only place that writes.
//! - `tar` and `zip`: the entries of an archive.

mod archive;
mod entry;
mod error;
mod names;
mod tar;
#[cfg(test)]
mod tests;
mod zip;

pub(crate) use self::{
    archive::{Limits, Unpacked, unpack},
    error::Error,
};
