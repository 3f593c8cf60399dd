//! Finds the directories of the splits by their names.

use std::path::{Path, PathBuf};

use fs_err as fs;

use super::{
    Error, Roots,
    kind::{FileKind, file_kind},
    split_names::{self, SplitMap, SplitNames},
};

/// Largest number of nested single directories above those of the splits.
const MAX_WRAPPERS: usize = 4;
/// Directories that a warning names.
const EXAMPLES: usize = 5;

#[derive(Debug, Default)]
pub(super) struct SplitDirectories {
    /// Splits by the name of the directory; `None` if the dataset has no splits.
    pub(super) splits: Option<SplitMap>,
    /// The directory that holds them, relative to the dataset, with `/`.
    pub(super) within: String,
    pub(super) warnings: Vec<String>,
}

impl SplitDirectories {
    /// Searches the directory of a dataset. Archives often wrap a dataset in a directory of its
    /// own, so a single directory is searched as well.
    pub(super) fn find(dataset: &Path, roots: &Roots) -> Result<Self, Error> {
        let mut found = SplitDirectories::default();
        let mut path = dataset.to_path_buf();
        let mut wrappers: Vec<String> = Vec::new();
        loop {
            let Content {
                directories,
                has_images,
            } = match Content::of(&path) {
                Ok(content) => content,
                // Such as `lost+found`.
                Err(_) if !wrappers.is_empty() => return Ok(found),
                Err(error) => return Err(error.into()),
            };
            let mut names = SplitNames::default();
            for (name, _) in &directories {
                names.add(name);
            }
            if !names.is_empty() {
                let splits = names
                    .resolve()
                    .map_err(|problem| Error::AmbiguousSplit { path, problem })?;
                found.warnings.extend(splits.warnings.iter().cloned());
                found.splits = Some(splits);
                found.within = wrappers.join("/");
                return Ok(found);
            }
            found.warnings.extend(warning(&directories));
            let [(name, inner)] = directories.as_slice() else {
                return Ok(found);
            };
            path = fs::canonicalize(inner)?;
            if has_images || wrappers.len() == MAX_WRAPPERS || !roots.contains(&path) {
                return Ok(found);
            }
            wrappers.push(name.clone());
        }
    }
}

/// Contents of a directory.
struct Content {
    /// Names and paths of the visible directories, by name.
    directories: Vec<(String, PathBuf)>,
    has_images: bool,
}

impl Content {
    fn of(path: &Path) -> std::io::Result<Self> {
        let (mut directories, mut has_images) = (Vec::new(), false);
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_image = file_kind(&name) == FileKind::Image;
            let kind = entry.file_type()?;
            // Links to images are common and need not be followed to recognise them.
            let is_directory =
                kind.is_dir() || (kind.is_symlink() && !is_image && entry.path().is_dir());
            if !is_directory {
                has_images |= is_image;
            } else if !name.starts_with('.') {
                directories.push((name, entry.path()));
            }
        }
        directories.sort();
        Ok(Content {
            directories,
            has_images,
        })
    }
}

/// Returns a sentence about directories whose names resemble those of splits.
fn warning(directories: &[(String, PathBuf)]) -> Option<String> {
    let names = directories.iter().map(|(name, _)| name.as_str());
    let alike = names.filter(|name| split_names::resembles_a_split(name));
    let alike: Vec<&str> = alike.take(EXAMPLES).collect();
    (!alike.is_empty()).then(|| {
        format!(
            "the images are split by the server, although directories are named like splits: {}; name them {} to have them used",
            alike.join(", "),
            split_names::ACCEPTED
        )
    })
}
