//! Images of a directory: ages from the names, by default from their start, splits from
//! sub-directories such as `train`, `val` and `test`.

use std::{
    collections::HashSet,
    io::{self, Read},
    path::{Path, PathBuf},
};

use fs_err as fs;

use super::{
    AgePattern, Error, LeftOutColumns, Options, Roots, Skipped, Split,
    candidate::{Candidate, Listing},
    default_reading::DefaultReading,
    kind::{FileKind, HEAD_BYTES, file_kind, is_image_content},
    labels::LabelPool,
    names,
    report::{RejectReason, Rejects},
    scan::reason_of_io,
    split_directories::SplitDirectories,
};

/// A directory to list. `path` has its links resolved; `name` is relative to the dataset, with `/`.
struct Pending {
    path: PathBuf,
    name: String,
    split: Option<Split>,
}

/// Lists the images under a resolved directory, in all its visible sub-directories, sorted by name.
///
/// An image beside the directories of the splits (see [`SplitDirectories`]) is rejected, because
/// its split is unknown.
///
/// The content decides whether a file with an unknown extension is an image. A file that the scan
/// opens is not opened here.
pub(super) fn list(
    directory: &Path,
    roots: &Roots,
    options: &Options,
    cancelled: &dyn Fn() -> bool,
) -> Result<Listing, Error> {
    let directories = SplitDirectories::find(directory, roots)?;
    let split_given = directories.splits.is_some();
    let warnings = directories.warnings.clone();
    let top = Pending {
        path: directory.to_path_buf(),
        name: String::new(),
        split: None,
    };
    let mut walk = Walk {
        roots,
        options,
        candidates: Vec::new(),
        rejects: Rejects::default(),
        ignored: 0,
        skipped: Skipped::default(),
        labels: LabelPool::default(),
        pending: vec![top],
        seen: HashSet::from([directory.to_path_buf()]),
        directories,
        default_reading: DefaultReading::default(),
    };
    while let Some(next) = walk.pending.pop() {
        if cancelled() {
            return Err(Error::Cancelled);
        }
        walk.directory(&next)?;
        if walk.candidates.len() > options.max_images {
            return Err(Error::TooManyImages {
                path: directory.to_path_buf(),
                limit: options.max_images,
            });
        }
    }
    walk.candidates
        .sort_unstable_by(|one, other| one.name.cmp(&other.name));
    Ok(Listing {
        candidates: walk.candidates,
        rejects: walk.rejects,
        ignored: walk.ignored,
        skipped: walk.skipped,
        split_given,
        left_out_columns: LeftOutColumns::default(),
        warnings,
        doubts: walk.default_reading.doubt().into_iter().collect(),
    })
}

struct Walk<'a> {
    roots: &'a Roots,
    options: &'a Options,
    candidates: Vec<Candidate>,
    rejects: Rejects,
    ignored: u64,
    skipped: Skipped,
    labels: LabelPool,
    pending: Vec<Pending>,
    /// Resolved directories that were listed, so that a link to a parent does not cause a loop.
    seen: HashSet<PathBuf>,
    directories: SplitDirectories,
    /// Used without an age pattern.
    default_reading: DefaultReading,
}

impl Walk<'_> {
    fn directory(&mut self, directory: &Pending) -> Result<(), Error> {
        let read = fs::read_dir(&directory.path)
            .and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
        let mut entries = match read {
            Ok(entries) => entries,
            // Such as `lost+found`: one reject, whatever it contains.
            Err(error) if !directory.name.is_empty() => {
                self.rejects
                    .add(reason_of_io(&error), directory.name.clone());
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        // The examples of the report must not depend on the order in which the file system lists
        // entries.
        entries.sort_unstable_by_key(fs::DirEntry::file_name);
        let copies = copies(&entries);
        for (entry, is_copy) in entries.into_iter().zip(copies) {
            let file_name = entry.file_name().to_string_lossy().into_owned();
            let name = if directory.name.is_empty() {
                file_name.clone()
            } else {
                format!("{}/{file_name}", directory.name)
            };
            let kind = entry.file_type()?;
            // Links are followed; a broken one counts as a file and is reported as missing later.
            let is_directory = kind.is_dir() || (kind.is_symlink() && entry.path().is_dir());
            if is_directory {
                self.sub_directory(directory, &entry.path(), &file_name, name)?;
            } else if is_copy {
                self.ignored += 1;
                self.skipped.copy(name);
            } else {
                self.file(directory.split, entry.path(), &file_name, name);
            }
        }
        Ok(())
    }

    fn sub_directory(
        &mut self,
        parent: &Pending,
        path: &Path,
        file_name: &str,
        name: String,
    ) -> Result<(), Error> {
        if file_name.starts_with('.') {
            self.ignored += 1;
            return Ok(());
        }
        let resolved = fs::canonicalize(path)?;
        if self.roots.is_data_dir(&resolved) {
            self.ignored += 1;
            return Ok(());
        }
        if !self.roots.contains(&resolved) {
            self.rejects.add(RejectReason::OutsideRoot, name);
            return Ok(());
        }
        if !self.seen.insert(resolved.clone()) {
            return Ok(());
        }
        let split = match &self.directories.splits {
            Some(splits) if parent.name == self.directories.within => splits.get(file_name),
            _ => parent.split,
        };
        self.pending.push(Pending {
            path: resolved,
            name,
            split,
        });
        Ok(())
    }

    fn file(&mut self, split: Option<Split>, path: PathBuf, file_name: &str, name: String) {
        let kind = file_kind(file_name);
        if kind == FileKind::Other {
            self.ignored += 1;
            return;
        }
        match self.age(split, kind, file_name, &name) {
            Ok(age) => {
                let pattern = self.options.age_pattern.as_ref();
                let has_labels = pattern.is_none_or(AgePattern::is_utkface);
                let labels = has_labels.then(|| names::utkface_labels(file_name));
                let labels = self.labels.labels(labels.unwrap_or_default());
                self.candidates.push(Candidate {
                    name,
                    path,
                    age,
                    labels,
                    split,
                    by_content: kind == FileKind::Unknown,
                });
            }
            // A file that is not an image does not need an age.
            Err(_) if kind == FileKind::Unknown && !self.is_image(&path) => {
                self.ignored += 1;
                self.skipped.not_an_image(name);
            }
            Err((reason, example)) => self.rejects.add(reason, example),
        }
    }

    /// Returns the age of an image, or the reason why it cannot be used with an example for the
    /// report.
    fn age(
        &mut self,
        split: Option<Split>,
        kind: FileKind,
        file_name: &str,
        name: &str,
    ) -> Result<f32, (RejectReason, String)> {
        if self.directories.splits.is_some() && split.is_none() {
            return Err((RejectReason::NoPart, name.to_owned()));
        }
        let pattern = self.options.age_pattern.as_ref();
        let age = match pattern.map(|pattern| pattern.read(name)) {
            None => {
                let age = names::age(file_name);
                // A file without an age may not be an image.
                if kind == FileKind::Image || age.is_some() {
                    self.default_reading.add(name, age);
                }
                age.ok_or_else(|| name.to_owned())
            }
            Some(read) => read.map_err(|reason| format!("{name}: {reason}")),
        };
        let age = age.map_err(|example| (RejectReason::NoAge, example))?;
        if self.options.ages.contains(age) {
            return Ok(age);
        }
        let example = match pattern {
            None => name.to_owned(),
            Some(_) => format!("{name}: age {age}"),
        };
        Err((RejectReason::AgeOutOfRange, example))
    }

    /// Returns true for a file under a root that starts like an image.
    fn is_image(&self, path: &Path) -> bool {
        let head = || {
            let path = fs::canonicalize(path)?;
            // Opening a named pipe would block forever.
            if !self.roots.contains(&path) || !fs::metadata(&path)?.is_file() {
                return Ok(Vec::new());
            }
            let mut head = Vec::new();
            fs::File::open(&path)?
                .take(HEAD_BYTES)
                .read_to_end(&mut head)?;
            Ok::<_, io::Error>(head)
        };
        // An unreadable file does not count as an image.
        head().is_ok_and(|head| is_image_content(&head))
    }
}

/// Returns for each entry of a sorted directory true if it is a copy of an image beside it: its
/// name is that of the image with a suffix, such as `_original` or `~`.
fn copies(entries: &[fs::DirEntry]) -> Vec<bool> {
    let names: Vec<_> = entries.iter().map(fs::DirEntry::file_name).collect();
    let is_copy = |name: &std::ffi::OsString| {
        let name = name.to_string_lossy();
        if file_kind(&name) != FileKind::Unknown {
            return false;
        }
        let ends = name
            .match_indices(['_', '~', '.', ' '])
            .map(|(at, _)| &name[..at]);
        ends.rev().any(|original| {
            file_kind(original) == FileKind::Image
                && names
                    .binary_search_by(|other| other.as_os_str().cmp(original.as_ref()))
                    .is_ok()
        })
    };
    names.iter().map(is_copy).collect()
}
