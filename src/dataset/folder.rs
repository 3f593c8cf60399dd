//! The pictures of a folder: ages from the names, by default from their start, the split from the sub-folders `train`, `val` and `test`.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use fs_err as fs;

use super::AgePattern;
use super::default_reading::DefaultReading;
use super::labels::LabelPool;
use super::load::Options;
use super::names;
use super::report::{RejectReason, Rejects};
use super::scan::{Candidate, Listing};
use super::{Error, Part, Roots};

/// One folder still to be listed. `path` has its links resolved; `name` is how the user sees it, relative and with `/`.
struct Pending {
    path: PathBuf,
    name: String,
    part: Option<Part>,
}

/// Lists the images under a resolved folder, in all its visible sub-folders, sorted by name.
///
/// Where the folder has a sub-folder `train`, `val` (`valid`, `validation`) or `test`, the split is taken from these and an
/// image beside them is rejected, since nobody knows where it belongs.
pub(super) fn list(
    folder: &Path,
    roots: &Roots,
    options: &Options,
    cancelled: &dyn Fn() -> bool,
) -> Result<Listing, Error> {
    let mut walk = Walk {
        roots,
        options,
        candidates: Vec::new(),
        rejects: Rejects::default(),
        ignored: 0,
        labels: LabelPool::default(),
        pending: Vec::new(),
        seen: HashSet::from([folder.to_path_buf()]),
        split_given: false,
        default_reading: DefaultReading::default(),
    };
    walk.top(folder)?;
    while let Some(next) = walk.pending.pop() {
        if cancelled() {
            return Err(Error::Cancelled);
        }
        walk.folder(&next)?;
        if walk.candidates.len() > options.max_images {
            return Err(Error::TooManyImages {
                path: folder.to_path_buf(),
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
        split_given: walk.split_given,
        doubts: walk.default_reading.doubt().into_iter().collect(),
    })
}

struct Walk<'a> {
    roots: &'a Roots,
    options: &'a Options,
    candidates: Vec<Candidate>,
    rejects: Rejects,
    ignored: u64,
    labels: LabelPool,
    pending: Vec<Pending>,
    /// Folders met, resolved: a link to a parent must not lead round in circles.
    seen: HashSet<PathBuf>,
    split_given: bool,
    /// Filled where no pattern says where the age is.
    default_reading: DefaultReading,
}

impl Walk<'_> {
    /// Looks for the folders of a split, then queues the whole folder.
    fn top(&mut self, folder: &Path) -> Result<(), Error> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            self.split_given |=
                Part::from_name(&name.to_string_lossy()).is_some() && entry.path().is_dir();
        }
        self.pending.push(Pending {
            path: folder.to_path_buf(),
            name: String::new(),
            part: None,
        });
        Ok(())
    }

    fn folder(&mut self, folder: &Pending) -> Result<(), Error> {
        let read =
            fs::read_dir(&folder.path).and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
        let mut entries = match read {
            Ok(entries) => entries,
            // Such as `lost+found`: one reject, whatever is inside.
            Err(_) if !folder.name.is_empty() => {
                self.rejects
                    .add(RejectReason::Unreadable, folder.name.clone());
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        // The order of a directory is the file system's; the examples in the report should not depend on it.
        entries.sort_unstable_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let file_name = entry.file_name().to_string_lossy().into_owned();
            let name = if folder.name.is_empty() {
                file_name.clone()
            } else {
                format!("{}/{file_name}", folder.name)
            };
            let kind = entry.file_type()?;
            // Of a link, what it leads to; a broken one stays a file and is reported as missing later.
            let is_folder = kind.is_dir() || (kind.is_symlink() && entry.path().is_dir());
            if is_folder {
                self.sub_folder(folder, &entry.path(), &file_name, name)?;
            } else {
                self.file(folder.part, entry.path(), &file_name, name);
            }
        }
        Ok(())
    }

    fn sub_folder(
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
        if !self.roots.contains(&resolved) {
            self.rejects.add(RejectReason::OutsideRoot, name);
            return Ok(());
        }
        if !self.seen.insert(resolved.clone()) {
            return Ok(());
        }
        let is_top = parent.name.is_empty();
        let part = if is_top {
            Part::from_name(file_name)
        } else {
            parent.part
        };
        self.pending.push(Pending {
            path: resolved,
            name,
            part,
        });
        Ok(())
    }

    fn file(&mut self, part: Option<Part>, path: PathBuf, file_name: &str, name: String) {
        if !names::is_image(file_name) {
            self.ignored += 1;
            return;
        }
        if self.split_given && part.is_none() {
            self.rejects.add(RejectReason::NoPart, name);
            return;
        }
        let pattern = self.options.age_pattern.as_ref();
        let age = match pattern.map(|pattern| pattern.read(&name)) {
            None => {
                let age = names::age(file_name);
                self.default_reading.add(&name, age);
                age.ok_or_else(|| name.clone())
            }
            Some(read) => read.map_err(|reason| format!("{name}: {reason}")),
        };
        let age = match age {
            Ok(age) => age,
            Err(example) => {
                self.rejects.add(RejectReason::NoAge, example);
                return;
            }
        };
        if !self.options.ages.contains(age) {
            let example = match pattern {
                None => name,
                Some(_) => format!("{name}: age {age}"),
            };
            self.rejects.add(RejectReason::AgeOutOfRange, example);
            return;
        }
        let has_labels = pattern.is_none_or(AgePattern::is_utkface);
        let labels = has_labels.then(|| names::utkface_labels(file_name));
        let labels = self.labels.labels(labels.unwrap_or_default());
        self.candidates.push(Candidate {
            name,
            path,
            age,
            labels,
            part,
        });
    }
}
