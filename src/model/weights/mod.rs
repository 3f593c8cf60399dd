//! Reads pretrained weights into named tensors: torch `.pth` files, safetensors files and the Hugging Face hub; and writes `.pth` files.
//!
//! Weights come from outside, so every file is treated as hostile: sizes are checked before memory is reserved, nothing
//! a pickle names is ever run, and a damaged file is an [`Error`] with a sentence, never a panic. Nothing here touches
//! libtorch; the model copies from [`TensorData`] into its own parameters.
//!
//! Reading order: [`read`] decides what a file is by its content and hands it to `pth` (with `archive`, `pickle`
//! and `value` below it) or to `safetensors`; `shapes` compares names and shapes; [`imagenet()`] looks for torchvision's weights on
//! disk and then asks `hub`.

mod archive;
mod error;
mod hub;
mod imagenet;
mod opcode;
mod pickle;
mod pth;
mod pth_writer;
mod safetensors;
mod shapes;
mod tensor;
#[cfg(test)]
mod tests;
mod value;

use std::io::Read;
use std::path::{Path, PathBuf};

use fs_err as fs;
use sha2::{Digest, Sha256};

pub use self::error::{Error, FormatError};
pub use self::hub::{HubError, HubOptions};
pub use self::imagenet::{TIMM_SHA256, TORCHVISION_SHA256, imagenet};
pub use self::pth_writer::to_pth;
pub use self::shapes::{Mismatch, check_shapes, resnet18_shapes, without_head};
pub use self::tensor::{DType, StateDict, TensorData};

/// The largest weights file that is read, in bytes (1 GiB). ResNet18 in 32 bits has 45 MiB.
pub const MAX_FILE_BYTES: u64 = 1 << 30;

/// Where a set of weights came from, for logs and the model version's manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// What it is, in words, for example "torchvision's resnet18-f37072fd.pth from a weights folder".
    pub description: String,
    /// The file that was read.
    pub path: PathBuf,
    /// SHA-256 of the whole file, 64 lower-case hexadecimal digits.
    pub sha256: String,
}

/// Reads a weights file of either format, whatever its extension says.
///
/// A file named as torch's hub names its downloads (`resnet18-f37072fd.pth`) must have the SHA-256 its name promises.
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
    let bytes = read_bounded(path)?;
    let sha256 = hex(&Sha256::digest(&bytes));
    if let Some(expected) = promised_digest(path)
        && !sha256.starts_with(&expected)
    {
        return Err(Error::Digest {
            path: path.to_owned(),
            expected,
            found: sha256,
        });
    }
    Ok((parse(&bytes, path)?, sha256))
}

/// Reads the bytes of a weights file of either format; `path` is for the error alone.
///
/// # Errors
/// They are of no known format, are damaged, or hold anything but tensors.
pub fn parse(bytes: &[u8], path: &Path) -> Result<StateDict, Error> {
    decode(bytes).map_err(|reason| Error::Format {
        path: path.to_owned(),
        reason,
    })
}

/// Decides by the first bytes what a file is and reads it.
fn decode(bytes: &[u8]) -> Result<StateDict, FormatError> {
    if archive::is_zip(bytes) {
        return pth::read(bytes);
    }
    if safetensors::is_safetensors(bytes) {
        return safetensors::read(bytes);
    }
    if pickle::is_pickle(bytes) {
        return Err(FormatError::OldPickle);
    }
    Err(FormatError::Unknown)
}

fn read_bounded(path: &Path) -> Result<Vec<u8>, Error> {
    let file = fs::File::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(Error::NotAFile {
            path: path.to_owned(),
        });
    }
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

/// The digest, or the beginning of one, that a file's name promises by torch's convention `name-<hexadecimal digits>.pth`.
fn promised_digest(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    if name == imagenet::TORCHVISION_FILE {
        return Some(TORCHVISION_SHA256.to_owned());
    }
    let (_, digits) = name.strip_suffix(".pth")?.rsplit_once('-')?;
    let is_digest = (8..=64).contains(&digits.len())
        && digits
            .bytes()
            .all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    is_digest.then(|| digits.to_owned())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
