//! The zip container of a `.pth` file.
//!
//! torch stores its entries uncompressed, so the content of an entry is a slice of the file and
//! needs no memory. The entries together must not be larger than the file, because overlapping
//! entries could multiply the work.

use std::{
    collections::BTreeMap,
    io::{self, Cursor},
};

use zip::{CompressionMethod, ZipArchive};

use super::{FormatError, text::quoted};

/// A state dict has one entry for each tensor; ResNet18's file has 129.
const MAX_ENTRIES: usize = 65_536;

/// Returns whether a file starts like a zip archive with at least one entry.
pub(super) fn is_zip(bytes: &[u8]) -> bool {
    bytes.starts_with(b"PK\x03\x04")
}

pub(super) struct Archive<'a> {
    zip: ZipArchive<Cursor<&'a [u8]>>,
    entries: BTreeMap<String, Entry<'a>>,
}

/// An entry as stored in the file.
struct Entry<'a> {
    index: usize,
    method: CompressionMethod,
    content: &'a [u8],
}

impl<'a> Archive<'a> {
    /// Reads the directory and locates the entries' content.
    pub(super) fn open(file: &'a [u8]) -> Result<Self, FormatError> {
        let mut zip = ZipArchive::new(Cursor::new(file)).map_err(damaged)?;
        if zip.len() > MAX_ENTRIES {
            return Err(FormatError::malformed(format!(
                "its zip directory has {} entries, more than {MAX_ENTRIES}",
                zip.len()
            )));
        }
        let mut entries = BTreeMap::new();
        let mut total = 0usize;
        for index in 0..zip.len() {
            let entry = zip.by_index_raw(index).map_err(damaged)?;
            let content = slice(file, entry.data_start(), entry.compressed_size())?;
            total = total.saturating_add(content.len());
            if total > file.len() {
                return Err(FormatError::malformed(
                    "its zip entries are larger than the file",
                ));
            }
            let found = Entry {
                index,
                method: entry.compression(),
                content,
            };
            entries.insert(entry.name().to_owned(), found);
        }
        Ok(Self { zip, entries })
    }

    /// Names of all entries, sorted.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// The content of an entry, with its checksum verified.
    pub(super) fn bytes(&self, name: &str) -> Result<&'a [u8], FormatError> {
        let Some(entry) = self.entries.get(name) else {
            return Err(FormatError::malformed(format!(
                "zip entry {} is missing",
                quoted(name)
            )));
        };
        if entry.method != CompressionMethod::Stored {
            return Err(FormatError::Unsupported(format!(
                "compressed zip entry {}",
                quoted(name)
            )));
        }
        // Reading an entry to its end compares its checksum; a clone of the archive shares the
        // directory.
        let mut zip = self.zip.clone();
        let mut reader = zip.by_index(entry.index).map_err(damaged)?;
        io::copy(&mut reader, &mut io::sink()).map_err(|error| {
            FormatError::malformed(format!("zip entry {}: {error}", quoted(name)))
        })?;
        Ok(entry.content)
    }
}

fn damaged(error: zip::result::ZipError) -> FormatError {
    FormatError::malformed(error.to_string())
}

fn slice(file: &[u8], start: u64, length: u64) -> Result<&[u8], FormatError> {
    let range = usize::try_from(start)
        .ok()
        .zip(usize::try_from(length).ok())
        .and_then(|(start, length)| Some(start..start.checked_add(length)?));
    range
        .and_then(|range| file.get(range))
        .ok_or_else(|| FormatError::malformed("a zip entry reaches past the end of the file"))
}
