//! What is pushed: a file as it is, or a directory as the tar that is made of it while it is read, from any byte on.
//!
//! The same directory is always the same bytes: names in order, and no times or owners. So an upload that broke off goes on where it ended, and nothing is written to this
//! machine's disk.

use std::{
    collections::HashSet,
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use fs_err as fs;
use tar::{EntryType, Header};

use crate::dataset::{FileKind, HEAD_BYTES, Skipped, file_kind, is_image_content};

/// Bytes of a block of a tar.
const BLOCK: u64 = 512;
/// Longest name that a header holds.
const SHORT_NAME: usize = 100;
/// The two empty blocks at the end.
const TRAILER: u64 = 2 * BLOCK;

/// Bytes to push.
#[derive(Debug)]
pub(super) enum Archive {
    /// An archive that is there.
    File {
        /// Where it is.
        path: PathBuf,
        /// Its bytes.
        length: u64,
    },
    /// The images and manifests of a directory.
    Directory(DirectoryTar),
}

impl Archive {
    /// Looks at what lies at the path.
    ///
    /// # Errors
    /// A path that cannot be read, and a directory without an image.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let found = fs::metadata(path)?;
        match found.is_dir() {
            true => DirectoryTar::open(path).map(Self::Directory),
            false => Ok(Self::File {
                path: path.to_owned(),
                length: found.len(),
            }),
        }
    }

    /// All its bytes.
    pub(super) fn length(&self) -> u64 {
        match self {
            Self::File { length, .. } => *length,
            Self::Directory(directory) => directory.length,
        }
    }

    /// Sentences about files that may have been meant as images and are not sent.
    pub(super) fn warnings(&self) -> Vec<String> {
        match self {
            Self::File { .. } => Vec::new(),
            Self::Directory(directory) => directory.skipped.warnings(),
        }
    }

    /// Its bytes from an offset on.
    pub(super) fn read_from(&self, offset: u64) -> io::Result<Box<dyn Read + '_>> {
        match self {
            Self::File { path, .. } => {
                let mut file = fs::File::open(path)?;
                file.seek(SeekFrom::Start(offset))?;
                Ok(Box::new(file))
            }
            Self::Directory(directory) => Ok(Box::new(TarReader {
                directory,
                position: offset,
                open: None,
            })),
        }
    }
}

/// A directory as a tar.
#[derive(Debug)]
pub(super) struct DirectoryTar {
    members: Vec<Member>,
    length: u64,
    skipped: Skipped,
}

/// A file in it.
#[derive(Debug)]
struct Member {
    path: PathBuf,
    /// Relative to the directory, with `/`.
    name: String,
    /// Bytes of the file.
    size: u64,
    /// Where its head begins in the tar.
    start: u64,
}

impl Member {
    /// What stands before the bytes of the file.
    fn head(&self) -> io::Result<Vec<u8>> {
        let mut head = Vec::new();
        let name = self.name.as_bytes();
        if name.len() > SHORT_NAME {
            // GNU's way: an entry whose bytes are the name of the next one, with a zero behind it.
            let mut long = Header::new_gnu();
            long.set_entry_type(EntryType::GNULongName);
            long.set_path("././@LongLink")?;
            finish(&mut long, name.len() as u64 + 1);
            head.extend_from_slice(long.as_bytes());
            head.extend_from_slice(name);
            let padded = padded(name.len() as u64 + 1) as usize;
            head.resize(BLOCK as usize + padded, 0);
        }
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        let short = &name[..name.len().min(SHORT_NAME)];
        header.as_gnu_mut().ok_or_else(no_gnu)?.name[..short.len()].copy_from_slice(short);
        finish(&mut header, self.size);
        head.extend_from_slice(header.as_bytes());
        Ok(head)
    }

    fn head_length(&self) -> u64 {
        match self.name.len() > SHORT_NAME {
            true => BLOCK + padded(self.name.len() as u64 + 1) + BLOCK,
            false => BLOCK,
        }
    }

    /// Where its bytes begin and end, and where the next member begins.
    fn places(&self) -> (u64, u64, u64) {
        let data = self.start + self.head_length();
        (data, data + self.size, data + padded(self.size))
    }
}

fn no_gnu() -> io::Error {
    io::Error::other("the header of a tar has another form than it was made with")
}

fn finish(header: &mut Header, size: u64) {
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_cksum();
}

fn padded(bytes: u64) -> u64 {
    bytes.next_multiple_of(BLOCK)
}

impl DirectoryTar {
    /// Lists the images and manifests under a directory that are not hidden, links followed.
    fn open(directory: &Path) -> io::Result<Self> {
        let mut found = Vec::new();
        let (mut has_images, mut skipped) = (false, Skipped::default());
        let mut seen = HashSet::new();
        let mut pending = vec![(directory.to_owned(), String::new())];
        while let Some((path, name)) = pending.pop() {
            // A link to a parent must not lead round in circles.
            if !seen.insert(fs::canonicalize(&path)?) {
                continue;
            }
            for entry in fs::read_dir(&path)? {
                let path = entry?.path();
                let file_name = path.file_name().unwrap_or_default();
                let Some(file_name) = file_name.to_str() else {
                    let text = format!("the name of {} is not UTF-8", path.display());
                    return Err(io::Error::new(io::ErrorKind::InvalidData, text));
                };
                if file_name.starts_with('.') {
                    continue;
                }
                let name = match name.as_str() {
                    "" => file_name.to_owned(),
                    parent => format!("{parent}/{file_name}"),
                };
                let kind = fs::metadata(&path)?;
                if kind.is_dir() {
                    pending.push((path, name));
                } else if kind.is_file() {
                    let is_image = is_image(&path, file_name)?;
                    has_images |= is_image;
                    if is_image || is_manifest(file_name) {
                        found.push((path, name, kind.len()));
                    } else if file_kind(file_name) == FileKind::Unknown {
                        skipped.not_an_image(name);
                    }
                }
            }
        }
        if !has_images {
            let text = format!(
                "{} holds no image; expected .jpg, .png, .webp or .bmp files whose names begin with the age, or which a manifest.csv names",
                directory.display()
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        found.sort_by(|(_, one, _), (_, other, _)| one.cmp(other));
        let mut length = 0;
        let mut members = Vec::with_capacity(found.len());
        for (path, name, size) in found {
            let member = Member {
                path,
                name,
                size,
                start: length,
            };
            length = member.places().2;
            members.push(member);
        }
        Ok(DirectoryTar {
            members,
            length: length + TRAILER,
            skipped,
        })
    }
}

/// True for an image, by its extension or else by its first bytes, as the server decides.
fn is_image(path: &Path, name: &str) -> io::Result<bool> {
    match file_kind(name) {
        FileKind::Image => Ok(true),
        FileKind::Other => Ok(false),
        FileKind::Unknown => {
            let mut head = Vec::new();
            let mut start = fs::File::open(path)?.take(HEAD_BYTES);
            start.read_to_end(&mut head)?;
            Ok(is_image_content(&head))
        }
    }
}

fn is_manifest(name: &str) -> bool {
    let end = name.rsplit_once('.').map_or("", |(_, end)| end);
    end.eq_ignore_ascii_case("csv") || end.eq_ignore_ascii_case("tsv")
}

/// Reads a directory's tar from a position on.
struct TarReader<'a> {
    directory: &'a DirectoryTar,
    position: u64,
    /// The file at hand and its index.
    open: Option<(usize, fs::File)>,
}

impl Read for TarReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.directory.length.saturating_sub(self.position);
        let most = buffer
            .len()
            .min(usize::try_from(left).unwrap_or(usize::MAX));
        if most == 0 {
            return Ok(0);
        }
        let read = self.read_some(&mut buffer[..most])?;
        self.position += read as u64;
        Ok(read)
    }
}

impl TarReader<'_> {
    /// Reads from one region of one member, or from the trailer; at least a byte.
    fn read_some(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let members = &self.directory.members;
        let behind = members.partition_point(|member| member.start <= self.position);
        let index = behind.saturating_sub(1);
        let member = &members[index];
        let (data, end, next) = member.places();
        let position = self.position;
        if position < data {
            let head = member.head()?;
            let rest = &head[(position - member.start) as usize..];
            let length = rest.len().min(buffer.len());
            buffer[..length].copy_from_slice(&rest[..length]);
            return Ok(length);
        }
        if position < end {
            let left = usize::try_from(end - position).unwrap_or(usize::MAX);
            let length = left.min(buffer.len());
            return self.read_file(index, position - data, &mut buffer[..length]);
        }
        let zeros_end = match position < next {
            true => next,
            false => self.directory.length,
        };
        let left = usize::try_from(zeros_end - position).unwrap_or(usize::MAX);
        let length = left.min(buffer.len());
        buffer[..length].fill(0);
        Ok(length)
    }

    fn read_file(&mut self, index: usize, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let member = &self.directory.members[index];
        let mut file = match self.open.take() {
            Some((open, file)) if open == index => file,
            _ => {
                let mut file = fs::File::open(&member.path)?;
                file.seek(SeekFrom::Start(offset))?;
                file
            }
        };
        let read = file.read(buffer)?;
        if read == 0 {
            let text = format!("{} became shorter while it was sent", member.path.display());
            return Err(io::Error::other(text));
        }
        self.open = Some((index, file));
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("train").join("x".repeat(120));
        fs::create_dir_all(&inner).unwrap();
        fs::create_dir_all(directory.path().join(".hidden")).unwrap();
        for (path, bytes) in [
            (directory.path().join("manifest.csv"), &b"path,age\n"[..]),
            (inner.join("30_a.jpg"), &[7; 512]),
            (inner.join("31_b.png"), &[8; 1000]),
            (inner.join("32_c"), b"\xFF\xD8\xFF and so on"),
            (inner.join("33_d.gif"), b"GIF89a"),
            (directory.path().join("train").join("32_empty.jpg"), b""),
            (directory.path().join("notes.txt"), b"no"),
            (directory.path().join(".hidden").join("33_c.jpg"), b"no"),
        ] {
            fs::File::create(&path).unwrap();
            fs_err::OpenOptions::new()
                .write(true)
                .open(&path)
                .and_then(|mut file| io::Write::write_all(&mut file, bytes))
                .unwrap();
        }
        directory
    }

    fn bytes_from(archive: &Archive, offset: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut reader = archive.read_from(offset).unwrap();
        reader.read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_directory_is_a_tar_that_others_read() {
        let directory = directory();
        let archive = Archive::open(directory.path()).unwrap();
        let bytes = bytes_from(&archive, 0);
        assert_eq!(bytes.len() as u64, archive.length());
        let mut read = tar::Archive::new(bytes.as_slice());
        let mut found = Vec::new();
        for entry in read.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            let name = entry.path().unwrap().to_str().unwrap().to_owned();
            found.push((name, content));
        }
        let long = "x".repeat(120);
        assert_eq!(
            found,
            [
                ("manifest.csv".to_owned(), b"path,age\n".to_vec()),
                ("train/32_empty.jpg".to_owned(), Vec::new()),
                (format!("train/{long}/30_a.jpg"), vec![7; 512]),
                (format!("train/{long}/31_b.png"), vec![8; 1000]),
                (
                    format!("train/{long}/32_c"),
                    b"\xFF\xD8\xFF and so on".to_vec()
                ),
            ]
        );
    }

    #[test]
    fn a_directory_can_be_read_from_every_byte_on() {
        let directory = directory();
        let archive = Archive::open(directory.path()).unwrap();
        let whole = bytes_from(&archive, 0);
        for offset in (0..=whole.len()).step_by(37) {
            let rest = bytes_from(&archive, offset as u64);
            assert!(rest == whole[offset..], "from {offset} on");
        }
    }

    #[test]
    fn a_directory_without_an_image_is_refused_with_a_way_out() {
        let directory = tempfile::tempdir().unwrap();
        let error = Archive::open(directory.path()).unwrap_err().to_string();
        assert!(error.contains("holds no image; expected"), "{error}");
    }
}
