//! Digests, which name artifacts.

use std::{
    fmt::Write as _,
    io::{self, Read},
    path::Path,
};

use fs_err as fs;
use object_store::path::Path as Key;
use sha2::{Digest as _, Sha256};

use super::Error;

/// Directory of the artifacts.
pub(super) const STORED: &str = "sha256";

/// Name and size of an artifact.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Digest {
    /// SHA-256 in hex.
    pub sha256: String,
    /// Bytes.
    pub size: u64,
}

/// Computes a digest.
#[derive(Default)]
pub(super) struct Hasher {
    hasher: Sha256,
    size: u64,
}

impl Hasher {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
    }

    pub(super) fn finish(self) -> Digest {
        let mut sha256 = String::with_capacity(64);
        for byte in self.hasher.finalize() {
            write!(sha256, "{byte:02x}").expect("writing to a string cannot fail");
        }
        Digest {
            sha256,
            size: self.size,
        }
    }
}

impl io::Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Computes the digest of a reader's bytes with little memory.
pub(super) fn hash(mut source: impl Read) -> io::Result<Digest> {
    let mut hasher = Hasher::default();
    io::copy(&mut source, &mut hasher)?;
    Ok(hasher.finish())
}

/// Computes the digest of a file.
///
/// # Errors
/// A file that cannot be read.
pub(crate) fn hash_file(path: &Path) -> io::Result<Digest> {
    hash(fs::File::open(path)?)
}

/// Returns the key of an artifact. Rejects any text but a digest, so that no name leads out of the
/// directory.
pub(super) fn key(sha256: &str) -> Result<Key, Error> {
    let is_digest = sha256.len() == 64
        && sha256
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if !is_digest {
        return Err(Error::BadDigest {
            text: sha256.chars().take(80).collect(),
        });
    }
    Ok(Key::from_iter([STORED, &sha256[..2], sha256]))
}
