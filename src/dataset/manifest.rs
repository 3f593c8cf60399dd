//! The pictures of a manifest: a CSV or TSV file with a path and an age in each row.
//!
//! The header names the columns, in any order and case: `path` (or `file`, `image`, `filename`) and `age`; optionally
//! `split`; every further column that defines groups is a label (see `label_columns`). Paths are relative to the folder of the manifest and stay
//! under it, or absolute and under a root.
//! Fields are separated by commas, tabs in a `.tsv`; a `.csv` whose header has no comma may use tabs or semicolons.

use std::collections::HashSet;
use std::path::{Component, Path};

use csv::{ByteRecord, ReaderBuilder};
use fs_err as fs;

use super::labels::LabelPool;
use super::load::Options;
use super::manifest_survey::{self, Survey, Wanted};
use super::report::{RejectReason, Rejects};
use super::scan::{Candidate, Listing};
use super::split_names::{ACCEPTED, Parts};
use super::{Error, LeftOutColumns, Roots, Skipped};

/// The accepted names of the column with the path, best first.
const PATH_COLUMNS: [&str; 4] = ["path", "file", "image", "filename"];
const AGE_COLUMN: &str = "age";
const SPLIT_COLUMN: &str = "split";

/// Characters of an unknown split that a message shows.
const SHOWN_SPLIT: usize = 40;

/// A manifest of ten million rows has about this size; a larger file is something else.
const MAX_MANIFEST_BYTES: u64 = 1 << 30;

/// Reads a manifest; `folder` is what its relative paths are relative to.
pub(super) fn list(
    manifest: &Path,
    folder: &Path,
    roots: &Roots,
    options: &Options,
    cancelled: &dyn Fn() -> bool,
) -> Result<Listing, Error> {
    let fail = |reason: String| Error::Manifest {
        path: manifest.to_path_buf(),
        reason,
    };
    let bytes = read(manifest, &fail)?;
    let open = || {
        ReaderBuilder::new()
            .delimiter(delimiter(manifest, &bytes))
            .flexible(true)
            .from_reader(bytes.as_slice())
    };
    let mut reader = open();
    let header = reader
        .byte_headers()
        .map_err(|error| fail(error.to_string()))?;
    let mut columns = Columns::find(manifest, header)?;
    let count = columns.count;
    let wanted = Wanted {
        labels: &columns.labels,
        split: columns.split,
        cell: String::from_utf8_lossy,
        is_row: &|record| record.len() == count,
    };
    let survey = Survey::of(open(), &wanted, cancelled).map_err(|error| match error {
        manifest_survey::Error::Cancelled => Error::Cancelled,
        manifest_survey::Error::Csv(error) => fail(error.to_string()),
    })?;
    let (labels, left_out_columns) = survey.labels.finish();
    columns.labels = labels;
    let parts = survey.split_names.resolve();
    let parts = parts.map_err(|problem| Error::AmbiguousSplit {
        path: manifest.to_path_buf(),
        problem,
    })?;
    let warnings = parts.warnings.clone();

    let mut rows = Rows {
        folder,
        roots,
        options,
        columns: &columns,
        parts: &parts,
        labels: LabelPool::default(),
        seen: HashSet::new(),
        candidates: Vec::new(),
        rejects: Rejects::default(),
        without_part: Vec::new(),
    };
    let mut record = ByteRecord::new();
    while reader
        .read_byte_record(&mut record)
        .map_err(|error| fail(error.to_string()))?
    {
        let line = record.position().map_or(0, csv::Position::line);
        // A quote that is never closed swallows all the rows after it, and one reject would hide them.
        if record.iter().any(|field| field.contains(&b'\n')) {
            return Err(fail(format!(
                "line {line}: a field goes over several lines; is a quote not closed?"
            )));
        }
        if line.is_multiple_of(4096) && cancelled() {
            return Err(Error::Cancelled);
        }
        rows.add(&record, line);
        if rows.candidates.len() > options.max_images {
            return Err(Error::TooManyImages {
                path: manifest.to_path_buf(),
                limit: options.max_images,
            });
        }
    }
    Ok(Listing {
        left_out_columns,
        warnings,
        ..rows.finish()
    })
}

fn read(manifest: &Path, fail: &dyn Fn(String) -> Error) -> Result<Vec<u8>, Error> {
    let size = fs::metadata(manifest)?.len();
    if size > MAX_MANIFEST_BYTES {
        return Err(fail(format!(
            "it has {size} bytes and the limit is {MAX_MANIFEST_BYTES}"
        )));
    }
    let mut bytes = fs::read(manifest)?;
    if bytes.starts_with(&[0xFF, 0xFE]) || bytes.starts_with(&[0xFE, 0xFF]) {
        return Err(fail("it is in UTF-16; save it as UTF-8".to_owned()));
    }
    if bytes.starts_with(&[0xEF, 0xBB, 0xBF]) {
        bytes.drain(..3);
    }
    Ok(bytes)
}

fn delimiter(manifest: &Path, bytes: &[u8]) -> u8 {
    let is_tsv = manifest
        .extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("tsv"));
    if is_tsv {
        return b'\t';
    }
    let header = bytes
        .split(|byte| *byte == b'\n')
        .next()
        .unwrap_or_default();
    [b',', b'\t', b';']
        .into_iter()
        .find(|delimiter| header.contains(delimiter))
        .unwrap_or(b',')
}

/// Where each column is.
struct Columns {
    path: usize,
    age: usize,
    split: Option<usize>,
    labels: Vec<(usize, String)>,
    count: usize,
}

impl Columns {
    fn find(manifest: &Path, header: &ByteRecord) -> Result<Self, Error> {
        let shown: Vec<String> = header
            .iter()
            .map(|name| String::from_utf8_lossy(name).trim().to_owned())
            .collect();
        let names: Vec<String> = shown.iter().map(|name| name.to_lowercase()).collect();
        let position = |wanted: &str| names.iter().position(|name| name == wanted);

        let path = PATH_COLUMNS.iter().find_map(|name| position(name));
        let age = position(AGE_COLUMN);
        let (Some(path), Some(age)) = (path, age) else {
            let mut missing = Vec::new();
            if path.is_none() {
                missing.push("path (or file, image, filename)");
            }
            if age.is_none() {
                missing.push(AGE_COLUMN);
            }
            return Err(Error::MissingColumns {
                path: manifest.to_path_buf(),
                missing: missing.join(" and "),
                found: shown.join(", "),
            });
        };
        let split = position(SPLIT_COLUMN);
        let is_label = |index: usize, name: &str| {
            let is_used = index == path || index == age || Some(index) == split;
            !is_used && !name.is_empty() && !PATH_COLUMNS.contains(&name)
        };
        let count = names.len();
        let labels = names
            .into_iter()
            .enumerate()
            .filter(|(index, name)| is_label(*index, name))
            .collect();
        Ok(Self {
            path,
            age,
            split,
            labels,
            count,
        })
    }
}

struct Rows<'a> {
    folder: &'a Path,
    roots: &'a Roots,
    options: &'a Options,
    columns: &'a Columns,
    parts: &'a Parts,
    labels: LabelPool,
    seen: HashSet<String>,
    candidates: Vec<Candidate>,
    rejects: Rejects,
    /// Lines whose cell in the split column is empty: rejected if any other row names a part.
    without_part: Vec<u64>,
}

impl Rows<'_> {
    fn add(&mut self, record: &ByteRecord, line: u64) {
        match self.candidate(record, line) {
            Ok(candidate) => {
                if candidate.part.is_none() {
                    self.without_part.push(line);
                }
                self.candidates.push(candidate);
            }
            Err((reason, example)) => self.rejects.add(reason, example),
        }
    }

    fn candidate(
        &mut self,
        record: &ByteRecord,
        line: u64,
    ) -> Result<Candidate, (RejectReason, String)> {
        let bad = |what: String| (RejectReason::BadRow, format!("line {line}: {what}"));
        if record.len() != self.columns.count {
            return Err(bad(format!(
                "{} fields, the header has {}",
                record.len(),
                self.columns.count
            )));
        }
        let cells = record
            .iter()
            .map(std::str::from_utf8)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| bad("it is not UTF-8".to_owned()))?;
        let cell = |index: usize| cells[index].trim();

        let path = cell(self.columns.path);
        if path.is_empty() {
            return Err(bad("the path is empty".to_owned()));
        }
        let name = plain(path, self.roots).ok_or((RejectReason::OutsideRoot, path.to_owned()))?;
        let age_text = cell(self.columns.age);
        let age = age_text
            .parse::<f32>()
            .ok()
            .filter(|age| age.is_finite())
            .ok_or_else(|| bad(format!("the age {age_text:?} is not a number")))?;
        if !self.options.ages.contains(age) {
            return Err((RejectReason::AgeOutOfRange, name));
        }
        let split = self.columns.split.map_or("", cell);
        let part = self.parts.part(split);
        if part.is_none() && !split.is_empty() {
            let shown: String = split.chars().take(SHOWN_SPLIT).collect();
            return Err(bad(format!("the split must be {ACCEPTED}, got {shown:?}")));
        }
        if !self.seen.insert(name.clone()) {
            return Err((RejectReason::DuplicateRow, name));
        }
        let labels = self.columns.labels.iter();
        let labels = labels
            .map(|(index, label)| (label.as_str(), cell(*index)))
            .filter(|(_, value)| !value.is_empty());
        Ok(Candidate {
            // Joining an absolute path gives that path.
            path: self.folder.join(&name),
            name,
            age,
            labels: self.labels.labels(labels),
            part,
            by_content: false,
        })
    }

    fn finish(mut self) -> Listing {
        let split_given = self.candidates.len() > self.without_part.len();
        if split_given {
            self.candidates.retain(|candidate| candidate.part.is_some());
            for line in self.without_part {
                self.rejects.add(
                    RejectReason::BadRow,
                    format!("line {line}: the split is empty while other rows have one"),
                );
            }
        }
        self.candidates
            .sort_unstable_by(|one, other| one.name.cmp(&other.name));
        Listing {
            candidates: self.candidates,
            rejects: self.rejects,
            ignored: 0,
            skipped: Skipped::default(),
            split_given,
            left_out_columns: LeftOutColumns::default(),
            warnings: Vec::new(),
        }
    }
}

/// The path with `/` between its parts and without `.`, or none where it is absolute without being under a root, or climbs with `..`. Where links lead
/// is looked at when the file is read.
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
