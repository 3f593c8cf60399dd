//! The images to predict: files as they are named, and directories with all their images.

use std::{
    collections::HashSet,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use fs_err as fs;

use crate::dataset::{FileKind, HEAD_BYTES, file_kind, is_image_content};

/// Files in the order of their predictions.
#[derive(Debug, Default)]
pub(super) struct Inputs {
    /// Named files, and the images of directories sorted by name.
    pub(super) files: Vec<PathBuf>,
    /// Sentences about directories whose images are missing from `files`.
    pub(super) warnings: Vec<String>,
}

impl Inputs {
    /// Replaces each directory by its images. Hidden files and files that are not images by their
    /// extension are left out, as in a dataset; files without a known extension count by their
    /// first bytes.
    pub(super) fn of(named: &[PathBuf]) -> Self {
        let mut inputs = Self::default();
        for path in named {
            // A missing file is reported with the results.
            if !path.is_dir() {
                inputs.files.push(path.clone());
                continue;
            }
            let before = inputs.files.len();
            inputs.walk(path, &mut HashSet::new());
            if inputs.files.len() == before {
                inputs
                    .warnings
                    .push(format!("{} contains no image", path.display()));
            }
        }
        inputs
    }

    fn walk(&mut self, directory: &Path, seen: &mut HashSet<PathBuf>) {
        let entries = entries(directory, seen);
        let entries = match entries {
            Ok(entries) => entries,
            Err(error) => {
                self.warnings
                    .push(format!("failed to read a directory: {error}"));
                return;
            }
        };
        for path in entries {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let is_hidden = name.starts_with('.');
            if path.is_dir() {
                if !is_hidden {
                    self.walk(&path, seen);
                }
            } else if is_image(&path, &name) {
                self.files.push(path);
            }
        }
    }
}

/// The sorted entries of a directory; none if a link leads to it again.
fn entries(directory: &Path, seen: &mut HashSet<PathBuf>) -> io::Result<Vec<PathBuf>> {
    if !seen.insert(fs::canonicalize(directory)?) {
        return Ok(Vec::new());
    }
    let mut entries = fs::read_dir(directory)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()?;
    entries.sort_unstable();
    Ok(entries)
}

fn is_image(path: &Path, name: &str) -> bool {
    match file_kind(name) {
        FileKind::Image => true,
        FileKind::Other => false,
        FileKind::Unknown => {
            let mut head = Vec::new();
            let read =
                fs::File::open(path).and_then(|file| file.take(HEAD_BYTES).read_to_end(&mut head));
            read.is_ok() && is_image_content(&head)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_searched_as_those_of_datasets() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let files = [
            ("b.jpg", &b"x"[..]),
            ("a/z.PNG", b"x"),
            ("a/c/face", b"\xFF\xD8\xFF and so on"),
            ("a/c/text", b"no image"),
            ("notes.txt", b"x"),
            (".hidden/d.jpg", b"x"),
            (".e.jpg", b"x"),
            ("empty/readme.md", b"x"),
        ];
        for (name, bytes) in files {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        #[cfg(unix)]
        std::os::unix::fs::symlink(root, root.join("a/loop")).unwrap();
        let missing = root.join("missing.jpg");
        let named = [root.join("b.jpg"), root.to_owned(), missing.clone()];
        let inputs = Inputs::of(&named);
        let found = ["b.jpg", "a/c/face", "a/z.PNG", "b.jpg"].map(|name| root.join(name));
        assert_eq!(inputs.files, [&found[..], &[missing]].concat());
        assert_eq!(inputs.warnings, [] as [String; 0]);
        let empty = Inputs::of(&[root.join("empty")]);
        assert_eq!(empty.warnings.len(), 1, "{:?}", empty.warnings);
        assert!(empty.warnings[0].ends_with("empty contains no image"));
    }
}
