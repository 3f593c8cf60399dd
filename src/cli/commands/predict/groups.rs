//! Input images, and their groups. A group becomes one request.

use std::{
    io::{ErrorKind, Read as _},
    path::{Path, PathBuf},
};

use prost::bytes::Bytes;

use crate::{cli::output::text::size_text, proto::v1::Limits};

/// Upper bounds of the encoding overhead, per request and per image.
const REQUEST_OVERHEAD: u64 = 1024;
const IMAGE_OVERHEAD: u64 = 16;
/// Limit of standard input, which is read before the server's limits are known.
const MAX_STDIN_BYTES: u64 = 1 << 30;
/// Files of a group that cannot be used; more of them start another group, so that groups stay
/// small.
const MAX_REFUSED: usize = 1000;

#[derive(Clone, Debug)]
pub(super) struct Image {
    source: Source,
    bytes: u64,
}

#[derive(Clone, Debug)]
enum Source {
    File(PathBuf),
    Memory(Bytes),
}

impl Image {
    /// Checks that the file exists, without reading it; `-` is standard input, which is read here.
    pub(super) fn find(name: &Path) -> Result<Self, String> {
        if name == Path::new("-") {
            let mut data = Vec::new();
            std::io::stdin()
                .take(MAX_STDIN_BYTES)
                .read_to_end(&mut data)
                .map_err(|error| format!("failed to read standard input: {error}"))?;
            return Ok(Self {
                bytes: data.len() as u64,
                source: Source::Memory(Bytes::from(data)),
            });
        }
        let metadata =
            std::fs::metadata(name).map_err(|error| match error.kind() == ErrorKind::NotFound {
                true => "file not found".to_owned(),
                false => format!("failed to read the file: {error}"),
            })?;
        if metadata.is_dir() {
            return Err("is a directory".to_owned());
        }
        Ok(Self {
            bytes: metadata.len(),
            source: Source::File(name.to_owned()),
        })
    }

    /// Refuses an image that the server would refuse.
    pub(super) fn check(self, limits: &Limits) -> Result<Self, String> {
        let largest = largest_image(limits);
        if self.bytes == 0 {
            return Err("is empty".to_owned());
        }
        if self.bytes > largest {
            return Err(format!(
                "is {} large, above the server's limit of {} per image",
                size_text(self.bytes),
                size_text(largest)
            ));
        }
        Ok(self)
    }

    pub(super) async fn read(&self) -> Result<Bytes, String> {
        match &self.source {
            Source::Memory(data) => Ok(data.clone()),
            Source::File(path) => fs_err::tokio::read(path)
                .await
                .map(Bytes::from)
                .map_err(|error| error.to_string()),
        }
    }
}

/// The largest image that fits the server's limit on images and, in its own request, on messages.
fn largest_image(limits: &Limits) -> u64 {
    let alone = limits
        .max_message_bytes
        .saturating_sub(REQUEST_OVERHEAD + IMAGE_OVERHEAD);
    limits.max_image_bytes.min(alone)
}

/// Consecutive files that fit into one request. Files are looked up when their group is taken, so
/// that a large directory needs memory only for its names.
pub(super) struct Groups<'a> {
    files: std::iter::Enumerate<std::slice::Iter<'a, PathBuf>>,
    limits: &'a Limits,
    /// An image that was too large for the previous group.
    next: Option<(usize, Image)>,
}

/// The images of one request, and the files between them that cannot be used, each with its index.
#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) images: Vec<(usize, Image)>,
    pub(super) refused: Vec<(usize, String)>,
}

impl<'a> Groups<'a> {
    pub(super) fn of(files: &'a [PathBuf], limits: &'a Limits) -> Self {
        Self {
            files: files.iter().enumerate(),
            limits,
            next: None,
        }
    }
}

impl Iterator for Groups<'_> {
    type Item = Group;

    fn next(&mut self) -> Option<Group> {
        let limits = self.limits;
        let max_images =
            usize::try_from(limits.max_images_per_request.max(1)).unwrap_or(usize::MAX);
        let max_bytes = limits.max_message_bytes.saturating_sub(REQUEST_OVERHEAD);
        let mut group = Group::default();
        let mut used = 0;
        if let Some((index, image)) = self.next.take() {
            used = image.bytes + IMAGE_OVERHEAD;
            group.images.push((index, image));
        }
        while group.images.len() < max_images && group.refused.len() < MAX_REFUSED {
            let Some((index, file)) = self.files.next() else {
                break;
            };
            match Image::find(file).and_then(|image| image.check(limits)) {
                Err(reason) => group.refused.push((index, reason)),
                Ok(image) => {
                    let needed = image.bytes + IMAGE_OVERHEAD;
                    if used + needed > max_bytes && !group.images.is_empty() {
                        self.next = Some((index, image));
                        break;
                    }
                    used += needed;
                    group.images.push((index, image));
                }
            }
        }
        let is_empty = group.images.is_empty() && group.refused.is_empty();
        (!is_empty).then_some(group)
    }
}
