//! Entries of a zip, read one at a time from its directory.
//!
//! The `zip` crate is not used: it allocates memory for the claimed number of entries, keeps all of
//! them, and searches for another directory if one is damaged, so the archive controls its memory.
//! PKWARE's APPNOTE.TXT, sections 4.3 to 4.5, describes the format.

use std::io::{self, BufReader, Read, Seek, SeekFrom};

use flate2::read::DeflateDecoder;
use fs_err as fs;

use super::{
    Error,
    archive::Reporter,
    entry::{Kind, Place, Target},
    names,
};

/// Bytes of the end record, without its comment.
const END: usize = 22;
/// Bytes of the locator of the end record for more than 4 GB or 65,535 entries, and of that record.
const LOCATOR_64: usize = 20;
const END_64: usize = 56;
/// Bytes of an entry in the directory, and of the header before its data, without names.
const ENTRY: usize = 46;
const LOCAL: usize = 30;
/// Marks a value that does not fit and is in an extra field.
const ELSEWHERE: u32 = u32::MAX;
/// The extra field for these values.
const EXTRA_64: u16 = 1;
/// Separators of a name's components. The format prescribes `/`; Windows programs also write `\`.
const SEPARATORS: &[char] = &['/', '\\'];
/// Flag for a name in UTF-8.
const UTF_8: u16 = 1 << 11;
/// Flags for encrypted data.
const ENCRYPTED: u16 = 1 | 1 << 6;
/// Systems whose attributes contain the kind of a file: Unix and Darwin.
const UNIX: [u8; 2] = [3, 19];

struct Directory {
    start: u64,
    entries: u64,
}

/// An entry of the directory.
struct Entry {
    name: Vec<u8>,
    /// `None` if the name is declared as UTF-8 and is not.
    text: Option<String>,
    kind: Kind,
    method: u16,
    is_encrypted: bool,
    crc: u32,
    compressed: u64,
    size: u64,
    header: u64,
}

/// Unpacks all entries.
pub(super) fn unpack(
    file: fs::File,
    size: u64,
    target: &mut Target<'_>,
    reporter: &mut Reporter<'_, '_>,
) -> Result<(), Error> {
    let mut data = file;
    let found = find(&mut data, size).map_err(|error| target.unreadable(error))?;
    let Some(found) = found else {
        return Err(target.damaged("the directory at its end is missing".to_owned()));
    };
    // A separate handle, because the data is read in between.
    let mut directory = fs::File::open(data.path())?;
    directory.seek(SeekFrom::Start(found.start))?;
    let mut directory = BufReader::new(directory);
    let mut done = 0;
    for _ in 0..found.entries {
        let entry = read_entry(&mut directory).map_err(|error| target.unreadable(error))?;
        let Some(entry) = entry else {
            return Err(target.damaged("its directory is incomplete".to_owned()));
        };
        let Some(name) = &entry.text else {
            target.count(&String::from_utf8_lossy(&entry.name))?;
            return Err(target.refuse("its name is not UTF-8".to_owned()));
        };
        let place = target.accept(name, SEPARATORS, entry.kind)?;
        if entry.is_encrypted {
            return Err(target.refuse("it is encrypted".to_owned()));
        }
        let wanted = match place {
            Place::File(path) => Some((path, None)),
            Place::Unknown(path, name) => Some((path, Some(name))),
            Place::Nowhere => None,
        };
        if let Some((path, unknown)) = wanted {
            let start = data_start(&mut data, &entry).map_err(|error| target.unreadable(error))?;
            if start.is_none_or(|start| start.saturating_add(entry.compressed) > size) {
                return Err(target.damaged("its data is not where it should be".to_owned()));
            }
            let raw = BufReader::new((&mut data).take(entry.compressed));
            let bytes: Box<dyn Read> = match entry.method {
                0 => Box::new(raw),
                8 => Box::new(DeflateDecoder::new(raw)),
                other => {
                    return Err(target.refuse(format!(
                        "its compression must be stored or deflated, got method {other}"
                    )));
                }
            };
            let bytes = Checked::new(bytes, entry.crc);
            match unknown {
                None => target.write(&path, bytes, entry.size)?,
                Some(name) => target.write_image(&path, name, bytes, entry.size)?,
            }
        }
        done = entry.compressed.saturating_add(done);
        reporter
            .done(done)
            .map_err(|error| target.unreadable(error))?;
    }
    Ok(())
}

/// Finds the directory at the end of the file: everything after the end record is its comment.
fn find(file: &mut fs::File, size: u64) -> io::Result<Option<Directory>> {
    let tail_length = size.min((END + LOCATOR_64 + usize::from(u16::MAX)) as u64);
    let tail_start = size - tail_length;
    file.seek(SeekFrom::Start(tail_start))?;
    let mut tail = Vec::new();
    file.take(tail_length).read_to_end(&mut tail)?;
    if tail.len() < END {
        return Ok(None);
    }
    let is_end = |at: &usize| {
        let record = &tail[*at..];
        record.starts_with(b"PK\x05\x06") && usize::from(u16_at(record, 20)) == record.len() - END
    };
    let Some(at) = (0..=tail.len() - END).rev().find(is_end) else {
        return Ok(None);
    };
    let record = &tail[at..];
    let (entries, start) = (u16_at(record, 10), u32_at(record, 16));
    let is_small = entries < u16::MAX && start < ELSEWHERE;
    let locator = at
        .checked_sub(LOCATOR_64)
        .map(|before| &tail[before..at])
        .filter(|locator| locator.starts_with(b"PK\x06\x07"));
    let Some(locator) = locator.filter(|_| !is_small) else {
        return Ok(Some(Directory {
            start: u64::from(start),
            entries: u64::from(entries),
        }));
    };
    file.seek(SeekFrom::Start(u64_at(locator, 8)))?;
    let Some(record) = block::<END_64>(file)? else {
        return Ok(None);
    };
    Ok(record.starts_with(b"PK\x06\x06").then(|| Directory {
        start: u64_at(&record, 48),
        entries: u64_at(&record, 32),
    }))
}

/// Reads the next entry of the directory; `None` if the bytes are not an entry.
fn read_entry(directory: &mut impl Read) -> io::Result<Option<Entry>> {
    let Some(fixed) = block::<ENTRY>(directory)? else {
        return Ok(None);
    };
    if !fixed.starts_with(b"PK\x01\x02") {
        return Ok(None);
    }
    // At most 64 kB each.
    let mut variable = |at: usize| -> io::Result<Vec<u8>> {
        let length = u64::from(u16_at(&fixed, at));
        let mut bytes = Vec::new();
        directory.take(length).read_to_end(&mut bytes)?;
        match bytes.len() as u64 == length {
            true => Ok(bytes),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    };
    let (name, extra, _comment) = (variable(28)?, variable(30)?, variable(32)?);
    let flags = u16_at(&fixed, 8);
    let mut wide = wide_values(&extra);
    let mut value = |narrow: u32| match narrow {
        ELSEWHERE => wide.next().unwrap_or(u64::from(narrow)),
        narrow => u64::from(narrow),
    };
    // In the order of the extra field.
    let size = value(u32_at(&fixed, 24));
    let compressed = value(u32_at(&fixed, 20));
    let header = value(u32_at(&fixed, 42));
    let text = names::of_zip(&name, flags & UTF_8 != 0, &extra);
    let is_directory = text
        .as_deref()
        .is_some_and(|text| text.ends_with(SEPARATORS));
    Ok(Some(Entry {
        kind: match is_directory {
            true => Kind::Directory,
            false => kind(fixed[5], u32_at(&fixed, 38)),
        },
        text,
        name,
        method: u16_at(&fixed, 10),
        is_encrypted: flags & ENCRYPTED != 0,
        crc: u32_at(&fixed, 16),
        compressed,
        size,
        header,
    }))
}

/// Iterates over the values of eight bytes in their extra field.
fn wide_values(extra: &[u8]) -> impl Iterator<Item = u64> {
    let found = names::extra_fields(extra).find(|(id, _)| *id == EXTRA_64);
    let body = found.map_or(&[][..], |(_, body)| body);
    body.chunks_exact(8).map(|value| u64_at(value, 0))
}

fn kind(system: u8, attributes: u32) -> Kind {
    // The kind is in the highest four bits of a Unix mode; many programs omit them for files.
    match attributes >> 28 {
        _ if !UNIX.contains(&system) => Kind::File,
        0 | 0o10 => Kind::File,
        0o4 => Kind::Directory,
        0o12 => Kind::Other("a symbolic link"),
        0o2 | 0o6 => Kind::Other("a device"),
        0o1 => Kind::Other("a pipe"),
        _ => Kind::Other("of a kind that is not known"),
    }
}

/// Seeks to the data of an entry and returns its position; `None` if the header is missing.
fn data_start(file: &mut fs::File, entry: &Entry) -> io::Result<Option<u64>> {
    file.seek(SeekFrom::Start(entry.header))?;
    let Some(header) = block::<LOCAL>(file)? else {
        return Ok(None);
    };
    if !header.starts_with(b"PK\x03\x04") {
        return Ok(None);
    }
    let names = u64::from(u16_at(&header, 26)) + u64::from(u16_at(&header, 28));
    let start = entry.header + LOCAL as u64 + names;
    file.seek(SeekFrom::Start(start))?;
    Ok(Some(start))
}

/// Reads `N` bytes; `None` if the file ends before.
fn block<const N: usize>(file: &mut impl Read) -> io::Result<Option<[u8; N]>> {
    let mut bytes = [0; N];
    match file.read_exact(&mut bytes) {
        Ok(()) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

/// A reader that fails at the end if the checksum differs.
struct Checked<R> {
    inner: R,
    hasher: crc32fast::Hasher,
    expected: u32,
}

impl<R> Checked<R> {
    fn new(inner: R, expected: u32) -> Self {
        Checked {
            inner,
            hasher: crc32fast::Hasher::new(),
            expected,
        }
    }
}

impl<R: Read> Read for Checked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        if read == 0 && !buffer.is_empty() && self.hasher.clone().finalize() != self.expected {
            return Err(io::Error::other("its checksum is wrong"));
        }
        Ok(read)
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
