//! Reads a weights file of either format.

use std::{io::Read, path::Path};

use fs_err as fs;
use sha2::{Digest, Sha256};

use super::{
    Error, FormatError, StateDict, archive, pickle, pth, published::promised_digest, safetensors,
    select::Selection, text::hex,
};

/// The size limit of weights files, 1 GiB. ResNet18 in 32 bits has 45 MiB.
pub(crate) const MAX_FILE_BYTES: u64 = 1 << 30;

/// Reads a weights file of either format, whatever its extension.
///
/// A file with a name under which torch hub publishes a ResNet18 (`resnet18-f37072fd.pth`) must
/// have the SHA-256 that the name promises.
///
/// # Errors
/// The file cannot be read, is larger than [`MAX_FILE_BYTES`], has an unknown format, is damaged,
/// or holds anything but tensors.
pub fn read(path: &Path) -> Result<StateDict, Error> {
    Ok(load(path)?.0)
}

/// As [`read`]; also returns the file's SHA-256 as 64 lower-case hexadecimal digits.
///
/// # Errors
/// As [`read`].
pub(crate) fn load(path: &Path) -> Result<(StateDict, String), Error> {
    let (found, sha256) = find(path, Selection::Whole)?;
    Ok((found.state, sha256))
}

/// The tensors of a network within a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// The tensors, by names without the prefix.
    pub state: StateDict,
    /// The keys that lead to them, joined by dots; `.` for the top level.
    pub place: String,
    /// The prefix of all names in the file, with its dot; often empty.
    pub prefix: String,
    /// The model description that Visage stored in the file.
    pub description: Option<String>,
}

/// Reads the ResNet18 in a file, however deep it is nested and whatever prefix its names have, and
/// returns the file's SHA-256. `key` selects the place if several networks fit.
///
/// Names and shapes are checked by [`check_shapes`](super::check_shapes), not here.
///
/// # Errors
/// As [`read`]; several networks, or names with different prefixes; a key that names nothing.
pub(crate) fn load_resnet18(path: &Path, key: Option<&str>) -> Result<(Found, String), Error> {
    find(path, Selection::ResNet18 { key })
}

fn find(path: &Path, selection: Selection<'_>) -> Result<(Found, String), Error> {
    let bytes = read_bounded(path)?;
    let sha256 = hex(&Sha256::digest(&bytes));
    if let Some(expected) = promised_digest(path)
        && !sha256.starts_with(expected)
    {
        return Err(Error::Digest {
            path: path.to_owned(),
            expected: expected.to_owned(),
            found: sha256,
        });
    }
    let found = decode(&bytes, selection).map_err(|reason| Error::Format {
        path: path.to_owned(),
        reason,
    })?;
    Ok((found, sha256))
}

/// Parses the bytes of a weights file of either format; `path` is for the error only.
///
/// # Errors
/// The bytes have an unknown format, are damaged, or hold anything but tensors.
pub(crate) fn parse(bytes: &[u8], path: &Path) -> Result<StateDict, Error> {
    let found = decode(bytes, Selection::Whole).map_err(|reason| Error::Format {
        path: path.to_owned(),
        reason,
    })?;
    Ok(found.state)
}

/// Detects the format by the first bytes and reads the tensors.
pub(super) fn decode(bytes: &[u8], selection: Selection<'_>) -> Result<Found, FormatError> {
    if archive::is_zip(bytes) {
        return pth::read(bytes, selection);
    }
    if safetensors::is_safetensors(bytes) {
        return safetensors::read(bytes, selection);
    }
    if pickle::is_pickle(bytes) {
        return Err(FormatError::OldPickle);
    }
    Err(FormatError::Unknown)
}

fn read_bounded(path: &Path) -> Result<Vec<u8>, Error> {
    // Before opening: opening a pipe blocks until it has a writer.
    if !fs::metadata(path)?.is_file() {
        return Err(Error::NotAFile {
            path: path.to_owned(),
        });
    }
    let file = fs::File::open(path)?;
    let metadata = file.metadata()?;
    if metadata.len() > MAX_FILE_BYTES {
        return Err(Error::TooLarge {
            path: path.to_owned(),
            size: metadata.len(),
            limit: MAX_FILE_BYTES,
        });
    }
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0));
    // The limit also holds for a file that grows meanwhile.
    file.take(MAX_FILE_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}
