//! Reads pretrained weights into named tensors: torch `.pth` files, safetensors files and the Hugging Face hub; and writes `.pth` files.
//!
//! Weights come from outside, so every file is treated as hostile: sizes are checked before memory is reserved, nothing
//! a pickle names is ever run, and a damaged file is an [`Error`] with a sentence, never a panic. Nothing here touches
//! libtorch; the model copies from [`TensorData`] into its own parameters.
//!
//! Reading order: [`read`] decides what a file is by its content and hands it to `pth` (with `archive`, `pickle`,
//! `value` and `search` below it) or to `safetensors`; both ask `select` which of the tensors are wanted. `shapes` compares names and
//! shapes, `finite` looks at the values; [`imagenet()`] looks for torchvision's weights on disk and then asks `hub`.

mod archive;
mod error;
mod finite;
mod hub;
mod imagenet;
mod opcode;
mod pickle;
mod pth;
mod pth_writer;
mod safetensors;
mod search;
mod select;
mod shapes;
mod tensor;
#[cfg(test)]
mod tests;
mod value;

use std::io::Read;
use std::path::{Path, PathBuf};

use fs_err as fs;
use sha2::{Digest, Sha256};

use self::select::Wanted;

pub use self::error::{Error, FormatError};
pub use self::finite::check_values;
pub use self::hub::{HubError, HubOptions};
pub use self::imagenet::{TIMM_SHA256, TORCHVISION_SHA256, imagenet};
pub use self::pth_writer::to_pth;
pub use self::safetensors::{described, metadata};
pub use self::shapes::{Mismatch, check_shapes, resnet18_shapes, without_head};
pub use self::tensor::{DType, StateDict, TensorData};

/// The largest weights file that is read, in bytes (1 GiB). ResNet18 in 32 bits has 45 MiB.
pub const MAX_FILE_BYTES: u64 = 1 << 30;
/// The key of a safetensors file's metadata under which a model of Visage is described.
pub const DESCRIPTION_KEY: &str = "visage";

/// File names that torch hub publishes for a ResNet18, each with the first digits of the file's SHA-256 that it promises.
const PUBLISHED: [(&str, &str); 4] = [
    (imagenet::TORCHVISION_FILE, TORCHVISION_SHA256),
    ("resnet18-5c106cde.pth", "5c106cde"),
    ("semi_supervised_resnet18-d92f0530.pth", "d92f0530"),
    ("semi_weakly_supervised_resnet18-118f1556.pth", "118f1556"),
];

/// Where a set of weights came from, for logs and the model version's manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// What it is, in words, for example "torchvision's resnet18-f37072fd.pth from a weights directory".
    pub description: String,
    /// The file that was read.
    pub path: PathBuf,
    /// SHA-256 of the whole file, 64 lower-case hexadecimal digits.
    pub sha256: String,
}

/// Reads a weights file of either format, whatever its extension says.
///
/// A file with a name under which torch hub publishes a ResNet18 (`resnet18-f37072fd.pth`) must have the SHA-256 that the name promises.
///
/// # Errors
/// The file cannot be read, is larger than [`MAX_FILE_BYTES`], is of no known format, is damaged, or holds anything but
/// tensors.
pub fn read(path: &Path) -> Result<StateDict, Error> {
    Ok(load(path)?.0)
}

/// As [`read`], and says the file's SHA-256 as 64 lower-case hexadecimal digits.
///
/// # Errors
/// As [`read`].
pub fn load(path: &Path) -> Result<(StateDict, String), Error> {
    let (found, sha256) = find(path, Wanted::Whole)?;
    Ok((found.state, sha256))
}

/// The tensors of a network within a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The tensors, by names without the prefix.
    pub state: StateDict,
    /// The keys that lead to them, joined by dots; `.` for the top level.
    pub place: String,
    /// The prefix that all names have in the file, with its dot; often empty.
    pub prefix: String,
    /// The description of a model of Visage that the file carries.
    pub description: Option<String>,
}

/// Reads the ResNet18 in a file, wherever it is nested and whatever prefix its names have, and says the file's SHA-256.
/// `key` names the place where several networks fit.
///
/// Names and shapes are checked by [`check_shapes`], not here.
///
/// # Errors
/// As [`read`]; several networks, or names with different prefixes; a key that names nothing.
pub fn load_resnet18(path: &Path, key: Option<&str>) -> Result<(Found, String), Error> {
    find(path, Wanted::ResNet18 { key })
}

fn find(path: &Path, wanted: Wanted<'_>) -> Result<(Found, String), Error> {
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
    let found = decode(&bytes, wanted).map_err(|reason| Error::Format {
        path: path.to_owned(),
        reason,
    })?;
    Ok((found, sha256))
}

/// Reads the bytes of a weights file of either format; `path` is for the error alone.
///
/// # Errors
/// They are of no known format, are damaged, or hold anything but tensors.
pub fn parse(bytes: &[u8], path: &Path) -> Result<StateDict, Error> {
    let found = decode(bytes, Wanted::Whole).map_err(|reason| Error::Format {
        path: path.to_owned(),
        reason,
    })?;
    Ok(found.state)
}

/// Decides by the first bytes what a file is and reads it.
fn decode(bytes: &[u8], wanted: Wanted<'_>) -> Result<Found, FormatError> {
    if archive::is_zip(bytes) {
        return pth::read(bytes, wanted);
    }
    if safetensors::is_safetensors(bytes) {
        return safetensors::read(bytes, wanted);
    }
    if pickle::is_pickle(bytes) {
        return Err(FormatError::OldPickle);
    }
    Err(FormatError::Unknown)
}

fn read_bounded(path: &Path) -> Result<Vec<u8>, Error> {
    // Before it is opened: to open a pipe waits for its writer.
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
    // The limit holds even for a file that grows meanwhile.
    file.take(MAX_FILE_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The first digits of the SHA-256 that a file's name promises. A number in any other name is a date, a step or a choice of its owner.
fn promised_digest(path: &Path) -> Option<&'static str> {
    let name = path.file_name()?;
    let published = PUBLISHED.iter().find(|(published, _)| name == *published);
    published.map(|(_, digest)| *digest)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
