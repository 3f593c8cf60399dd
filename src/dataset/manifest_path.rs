//! Finds the file that a manifest names. Other systems write paths with backslashes, and with
//! another normalization of Unicode than the names on this disk.

use std::{
    collections::HashMap,
    path::{Component, Path, PathBuf},
};

use fs_err as fs;
use unicode_normalization::UnicodeNormalization;

use super::{Roots, report::RejectReason};

#[derive(Debug)]
pub(super) struct Found {
    /// As the manifest writes it, with `/` between its components and without `.`.
    pub(super) name: String,
    /// The name on disk: two rows with the same one name the same image.
    pub(super) on_disk: String,
}

pub(super) struct Paths<'a> {
    directory: &'a Path,
    roots: &'a Roots,
    /// Names of files and directories beyond ASCII, by directory and by their NFC.
    listed: HashMap<PathBuf, HashMap<String, Vec<String>>>,
    /// Directory entries that may still be kept.
    budget: usize,
}

impl<'a> Paths<'a> {
    /// `budget` limits the directory entries that are kept.
    pub(super) fn new(directory: &'a Path, roots: &'a Roots, budget: usize) -> Self {
        Paths {
            directory,
            roots,
            listed: HashMap::new(),
            budget,
        }
    }

    /// Finds the file of a row. A file that does not exist is found under its own name: the scan
    /// reports it.
    ///
    /// # Errors
    /// The reason and the example of a reject.
    pub(super) fn find(&mut self, written: &str) -> Result<Found, (RejectReason, String)> {
        let outside = |example: String| (RejectReason::OutsideRoot, example);
        if has_drive(written) {
            let example = format!(
                "{written}: a path with a drive letter; write it relative to the directory of the manifest"
            );
            return Err(outside(example));
        }
        let slashed = written.replace('\\', "/");
        let name = plain(&slashed, self.roots).ok_or_else(|| outside(written.to_owned()))?;
        if name.is_ascii() && !written.contains('\\') || self.directory.join(&name).exists() {
            return Ok(same(name));
        }
        // On this system a backslash may belong to the name; archives from Windows are unpacked to
        // such names.
        if written.contains('\\')
            && let Some(literal) = plain(written, self.roots)
            && self.directory.join(&literal).exists()
        {
            return Ok(same(literal));
        }
        match self.normalized(&name) {
            Normalized::One(on_disk) => Ok(Found { name, on_disk }),
            Normalized::None => Ok(same(name)),
            Normalized::Several(count) => Err((
                RejectReason::Missing,
                format!(
                    "{name}: {count} files have this name in other normalizations of Unicode; rename all but one, or write its exact name"
                ),
            )),
        }
    }

    /// Returns the name on disk that is equal after normalization, component by component.
    fn normalized(&mut self, name: &str) -> Normalized {
        let mut path = match name.starts_with('/') {
            true => PathBuf::from("/"),
            false => self.directory.to_path_buf(),
        };
        let mut on_disk: Vec<String> = Vec::new();
        for part in name.split('/').filter(|part| !part.is_empty()) {
            let mut found = part.to_owned();
            if !part.is_ascii() && !path.join(part).exists() {
                match self.in_directory(&path, part).as_deref() {
                    None | Some([]) => return Normalized::None,
                    Some([one]) => found.clone_from(one),
                    Some(several) => return Normalized::Several(several.len()),
                }
            }
            path.push(&found);
            on_disk.push(found);
        }
        let joined = on_disk.join("/");
        Normalized::One(match name.starts_with('/') {
            true => format!("/{joined}"),
            false => joined,
        })
    }

    /// Returns the names in a directory that are equal after normalization; `None` if it must not
    /// or cannot be listed.
    fn in_directory(&mut self, directory: &Path, part: &str) -> Option<Vec<String>> {
        let resolved = fs::canonicalize(directory).ok()?;
        if !self.roots.contains(&resolved) {
            return None;
        }
        if !self.listed.contains_key(&resolved) {
            let names = self.list(&resolved);
            self.listed.insert(resolved.clone(), names);
        }
        let names = self.listed.get(&resolved)?;
        Some(names.get(&nfc(part)).cloned().unwrap_or_default())
    }

    fn list(&mut self, directory: &Path) -> HashMap<String, Vec<String>> {
        let mut names: HashMap<String, Vec<String>> = HashMap::new();
        let Ok(entries) = fs::read_dir(directory) else {
            return names;
        };
        for entry in entries.flatten() {
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else {
                continue;
            };
            // An ASCII name is the same in every normalization.
            if name.is_ascii() {
                continue;
            }
            let Some(left) = self.budget.checked_sub(1) else {
                break;
            };
            self.budget = left;
            names.entry(nfc(&name)).or_default().push(name);
        }
        names
    }
}

/// Names on disk that are equal to a name after normalization.
enum Normalized {
    None,
    One(String),
    Several(usize),
}

fn same(name: String) -> Found {
    Found {
        on_disk: name.clone(),
        name,
    }
}

fn nfc(text: &str) -> String {
    text.nfc().collect()
}

/// Returns true for a path such as `C:\faces\1.jpg`.
fn has_drive(path: &str) -> bool {
    matches!(path.as_bytes(), [letter, b':', b'\\' | b'/', ..] if letter.is_ascii_alphabetic())
}

/// Returns the path with `/` between its components and without `.`; `None` for an absolute path
/// outside the roots or a path with `..`. The targets of links are checked when the file is read.
fn plain(path: &str, roots: &Roots) -> Option<String> {
    let mut parts = Vec::new();
    let mut is_absolute = false;
    for component in Path::new(path).components() {
        match component {
            Component::Normal(part) => parts.push(part.to_str()?),
            Component::CurDir => {}
            Component::RootDir => is_absolute = true,
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    if parts.is_empty() {
        return None;
    }
    let joined = parts.join("/");
    if !is_absolute {
        return Some(joined);
    }
    let absolute = format!("/{joined}");
    roots.contains(Path::new(&absolute)).then_some(absolute)
}
