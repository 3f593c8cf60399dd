//! The archive to upload: a file as it is, or a directory packed into a temporary tar.
//!
//! The tar of an unchanged directory always has the same bytes (sorted names; fixed modes, owners
//! and times), so a later run can resume an interrupted upload. Their digest shows whether it is
//! the same content.

use std::{
    collections::HashSet,
    fs::File,
    io::{self, ErrorKind, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use fs_err as fs;
use sha2::{Digest as _, Sha256};
use tar::{Builder, Header};

use crate::{
    cli::{commands::dataset::background::Reporter, output::text::size_text},
    dataset::{FileKind, HEAD_BYTES, Skipped, file_kind, is_image_content},
};

/// Bytes that are read at a time.
const BUFFER_BYTES: usize = 1 << 20;

#[derive(Debug)]
pub(super) struct Archive {
    file: File,
    /// Size in bytes.
    length: u64,
    /// SHA-256 of all bytes.
    sha256: [u8; 32],
    /// Sentences about files that may be images but are not part of the archive.
    warnings: Vec<String>,
}

impl Archive {
    /// Packs a directory, or opens a file, and computes the digest.
    ///
    /// # Errors
    /// A path that cannot be read, a directory without images, or a full temporary directory.
    pub(super) fn open(path: &Path, reporter: &Reporter) -> io::Result<Self> {
        if !fs::metadata(path)?.is_dir() {
            let file = fs::File::open(path)?.into_parts().0;
            let (length, sha256) = digest(&file, reporter)?;
            return Ok(Self {
                file,
                length,
                sha256,
                warnings: Vec::new(),
            });
        }
        let listing = Listing::read(path)?;
        let (count, bytes) = (listing.files.len(), listing.bytes());
        reporter.note(format!("Packing {count} files, {}.", size_text(bytes)));
        let mut target = Hashing {
            // Without a name, so that it never outlives the process.
            file: tempfile::tempfile()?,
            digest: Sha256::new(),
        };
        pack(&listing.files, &mut target, |packed| {
            reporter.report("pack", packed, bytes);
        })?;
        Ok(Self {
            length: target.file.metadata()?.len(),
            file: target.file,
            sha256: target.digest.finalize().into(),
            warnings: listing.skipped.warnings(),
        })
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    pub(super) fn sha256(&self) -> &[u8; 32] {
        &self.sha256
    }

    pub(super) fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Reads from an offset. The position is shared, so only one reader is used at a time.
    pub(super) fn read_from(&self, offset: u64) -> io::Result<&File> {
        let mut file = &self.file;
        file.seek(SeekFrom::Start(offset))?;
        Ok(file)
    }
}

/// Length and SHA-256 of a file.
fn digest(mut file: &File, reporter: &Reporter) -> io::Result<(u64, [u8; 32])> {
    let total = file.metadata()?.len();
    let (mut length, mut digest) = (0, Sha256::new());
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        reporter.report("read", length, total);
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok((length, digest.finalize().into()));
        }
        digest.update(&buffer[..read]);
        length += read as u64;
    }
}

/// A file and the digest of what is written to it.
struct Hashing {
    file: File,
    digest: Sha256,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.digest.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A file of the archive.
struct Member {
    path: PathBuf,
    /// Relative to the directory, with `/`.
    name: String,
    bytes: u64,
}

fn pack(
    members: &[Member],
    target: impl Write,
    mut on_progress: impl FnMut(u64),
) -> io::Result<()> {
    let mut packed = 0;
    let mut tar = Builder::new(target);
    for member in members {
        on_progress(packed);
        let mut file = fs::File::open(&member.path)?;
        let mut header = Header::new_gnu();
        header.set_size(member.bytes);
        header.set_mode(0o644);
        tar.append_data(&mut header, &member.name, (&mut file).take(member.bytes))?;
        if file.stream_position()? != member.bytes {
            let path = member.path.display();
            return Err(io::Error::other(format!(
                "{path} was truncated while it was read"
            )));
        }
        packed += member.bytes;
    }
    tar.into_inner()?.flush()
}

/// Images and manifests of a directory, sorted by name.
struct Listing {
    files: Vec<Member>,
    skipped: Skipped,
}

impl Listing {
    fn bytes(&self) -> u64 {
        self.files.iter().map(|member| member.bytes).sum()
    }

    /// Walks the directory, following links and leaving out hidden files.
    fn read(directory: &Path) -> io::Result<Self> {
        let mut files = Vec::new();
        let (mut has_images, mut skipped) = (false, Skipped::default());
        let mut seen = HashSet::new();
        let mut pending = vec![(directory.to_owned(), String::new())];
        while let Some((path, parent)) = pending.pop() {
            // A link to a parent directory would be followed forever.
            if !seen.insert(fs::canonicalize(&path)?) {
                continue;
            }
            for entry in fs::read_dir(&path)? {
                let path = entry?.path();
                let file_name = path.file_name().unwrap_or_default();
                let Some(file_name) = file_name.to_str() else {
                    return Err(invalid(format!(
                        "the name of {} is not UTF-8",
                        path.display()
                    )));
                };
                if file_name.starts_with('.') {
                    continue;
                }
                let name = match parent.as_str() {
                    "" => file_name.to_owned(),
                    parent => format!("{parent}/{file_name}"),
                };
                let metadata = fs::metadata(&path)?;
                if metadata.is_dir() {
                    pending.push((path, name));
                } else if metadata.is_file() {
                    let is_image = is_image(&path, file_name)?;
                    has_images |= is_image;
                    if is_image || is_manifest(file_name) {
                        let bytes = metadata.len();
                        files.push(Member { path, name, bytes });
                    } else if file_kind(file_name) == FileKind::Unknown {
                        skipped.not_an_image(name);
                    }
                }
            }
        }
        if !has_images {
            return Err(invalid(format!(
                "{} contains no image; expected .jpg, .png, .webp or .bmp files whose names start \
                 with the age or are listed in a manifest.csv",
                directory.display()
            )));
        }
        files.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(Self { files, skipped })
    }
}

fn invalid(text: String) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, text)
}

/// Recognizes an image by its extension or else by its first bytes, as the server does.
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
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    extension.eq_ignore_ascii_case("csv") || extension.eq_ignore_ascii_case("tsv")
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

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
            fs::write(path, bytes).unwrap();
        }
        directory
    }

    fn bytes(archive: &Archive, offset: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut reader = archive.read_from(offset).unwrap();
        reader.read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_directory_becomes_a_tar_of_its_images_and_manifests() {
        let directory = directory();
        let archive = Archive::open(directory.path(), &Reporter::unread()).unwrap();
        let packed = bytes(&archive, 0);
        assert_eq!(packed.len() as u64, archive.length());
        let mut read = tar::Archive::new(packed.as_slice());
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
    fn an_unchanged_directory_has_the_same_bytes_in_a_later_run() {
        let directory = directory();
        let first = Archive::open(directory.path(), &Reporter::unread()).unwrap();
        let image = directory.path().join("train").join("32_empty.jpg");
        let later = SystemTime::now() + Duration::from_secs(3600);
        let touched = fs_err::OpenOptions::new().write(true).open(image).unwrap();
        touched.file().set_modified(later).unwrap();
        let second = Archive::open(directory.path(), &Reporter::unread()).unwrap();
        assert!(bytes(&first, 0) == bytes(&second, 0));
        assert!(bytes(&first, 700) == bytes(&second, 0)[700..]);
        assert_eq!(first.sha256(), second.sha256());
    }

    #[test]
    fn the_digest_is_that_of_the_bytes_and_changes_with_a_file_of_the_same_size() {
        let directory = directory();
        let open = |path: &Path| Archive::open(path, &Reporter::unread()).unwrap();
        let first = open(directory.path());
        let packed = directory.path().join("faces.tar");
        fs::write(&packed, bytes(&first, 0)).unwrap();
        assert_eq!(open(&packed).sha256(), first.sha256());
        let found: [u8; 32] = Sha256::digest(bytes(&first, 0)).into();
        assert_eq!(&found, first.sha256());
        fs::write(directory.path().join("manifest.csv"), b"path,agf\n").unwrap();
        let changed = open(directory.path());
        assert_eq!(changed.length(), first.length());
        assert_ne!(changed.sha256(), first.sha256());
    }

    #[test]
    fn a_directory_without_images_is_refused_with_a_remedy() {
        let directory = tempfile::tempdir().unwrap();
        let error = Archive::open(directory.path(), &Reporter::unread()).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("contains no image; expected"), "{error}");
    }
}
