//! The images of a manifest: a CSV or TSV file with a path and an age in each row.
//!
//! The header names the columns, in any order and case: `path` (or `file`, `image`, `filename`) and
//! `age`; optionally `split`; every further column that defines groups is a label (see
//! `label_columns`). [`Options::columns`] may name other columns. Paths are relative to the
//! directory of the manifest and stay under it, or absolute and under a root; see `manifest_path`.
//! Encoding, line ends and delimiters are those of spreadsheets; see `manifest_text`.

use std::{borrow::Cow, collections::HashSet, io::Read, path::Path};

use csv::ByteRecord;
use fs_err as fs;

use super::{
    ColumnNames, Error, LeftOutColumns, Options, Roots, Skipped,
    candidate::{Candidate, Listing},
    labels::LabelPool,
    manifest_columns::{Columns, failed},
    manifest_path::Paths,
    manifest_survey::{self, Survey, Wanted},
    manifest_text::{self, MAX_HEADER_BYTES, Text},
    report::{RejectReason, Rejects},
    split_names::{ACCEPTED, SplitMap},
};

/// Characters of an unknown split that a message shows.
const SHOWN_SPLIT: usize = 40;

/// A manifest of ten million rows has about this size; a larger file is something else.
const MAX_MANIFEST_BYTES: u64 = 1 << 30;

/// Checks only the header, reading at most [`MAX_HEADER_BYTES`].
pub(super) fn check_header(manifest: &Path, options: &Options) -> Result<(), Error> {
    let bytes = read(manifest, MAX_HEADER_BYTES as u64)?;
    let text = Text::new(bytes).map_err(|reason| failed(manifest, reason))?;
    find_columns(manifest, &text, &options.columns).map(drop)
}

/// Lists the images of a manifest whose relative paths start at `directory`.
pub(super) fn list(
    manifest: &Path,
    directory: &Path,
    roots: &Roots,
    options: &Options,
    cancelled: &dyn Fn() -> bool,
) -> Result<Listing, Error> {
    let fail = |reason: String| failed(manifest, reason);
    let text = Text::new(read(manifest, MAX_MANIFEST_BYTES)?).map_err(fail)?;
    let (delimiter, mut columns) = find_columns(manifest, &text, &options.columns)?;
    let below_header = || {
        let mut reader = manifest_text::reader(text.table(), delimiter);
        match reader.read_byte_record(&mut ByteRecord::new()) {
            Ok(_) => Ok(reader),
            Err(error) => Err(fail(error.to_string())),
        }
    };
    let (needed, count) = (columns.needed(), columns.count);
    let wanted = Wanted {
        labels: &columns.labels,
        split: columns.split,
        cell: manifest_text::cell,
        is_row: &|record| {
            let is_blank = |field: &[u8]| field.trim_ascii().is_empty();
            record.len() >= needed && record.iter().skip(count).all(is_blank)
        },
    };
    let survey = Survey::read(below_header()?, &wanted, cancelled);
    let survey = survey.map_err(|error| match error {
        manifest_survey::Error::Cancelled => Error::Cancelled,
        manifest_survey::Error::Csv(error) => fail(error.to_string()),
    })?;
    let (labels, left_out_columns) = survey.labels.finish();
    columns.labels = labels;
    let splits = survey.split_names.resolve();
    let splits = splits.map_err(|problem| Error::AmbiguousSplit {
        path: manifest.to_path_buf(),
        problem,
    })?;
    let warnings = splits.warnings.clone();

    let mut rows = Rows {
        options,
        columns: &columns,
        splits: &splits,
        delimiter,
        paths: Paths::new(directory, roots, options.max_images),
        directory,
        labels: LabelPool::default(),
        seen: HashSet::new(),
        candidates: Vec::new(),
        rejects: Rejects::default(),
        without_split: Vec::new(),
        legacy: 0,
    };
    let mut reader = below_header()?;
    let mut record = ByteRecord::new();
    while reader
        .read_byte_record(&mut record)
        .map_err(|error| fail(error.to_string()))?
    {
        let line = record.position().map_or(0, csv::Position::line) + text.skipped_lines;
        // A quote that is not closed swallows all rows after it, and one reject would hide them.
        if record.iter().any(|field| field.contains(&b'\n')) {
            return Err(fail(format!(
                "line {line}: a field spans several lines; close its quote, or remove the line breaks"
            )));
        }
        if line.is_multiple_of(4096) && cancelled() {
            return Err(Error::Cancelled);
        }
        let is_cut_off =
            text.ends_within_line() && reader.position().byte() == text.table().len() as u64;
        rows.add(&record, line, is_cut_off);
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

/// Reads up to `limit` bytes of a manifest.
fn read(manifest: &Path, limit: u64) -> Result<Vec<u8>, Error> {
    let size = fs::metadata(manifest)?.len();
    if size > MAX_MANIFEST_BYTES {
        return Err(failed(
            manifest,
            format!("it must have at most {MAX_MANIFEST_BYTES} bytes, got {size}"),
        ));
    }
    let mut bytes = Vec::new();
    // A file that grows meanwhile is read up to the limit.
    fs::File::open(manifest)?
        .take(limit)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Returns the delimiter and the columns.
fn find_columns(manifest: &Path, text: &Text, names: &ColumnNames) -> Result<(u8, Columns), Error> {
    let is_tsv = manifest
        .extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("tsv"));
    let usable = |header: &ByteRecord| Columns::find(manifest, header, names).is_ok();
    let (delimiter, header) = text
        .header(is_tsv, &usable)
        .map_err(|error| failed(manifest, error.to_string()))?;
    let columns = Columns::find(manifest, &header, names)?;
    Ok((delimiter, columns))
}

struct Rows<'a> {
    options: &'a Options,
    columns: &'a Columns,
    splits: &'a SplitMap,
    delimiter: u8,
    paths: Paths<'a>,
    directory: &'a Path,
    labels: LabelPool,
    /// Names on disk of earlier rows.
    seen: HashSet<String>,
    candidates: Vec<Candidate>,
    rejects: Rejects,
    /// Lines with an empty cell in the split column: rejected if any other row names a split.
    without_split: Vec<u64>,
    /// Rows that are not UTF-8.
    legacy: u64,
}

impl Rows<'_> {
    fn add(&mut self, record: &ByteRecord, line: u64, is_cut_off: bool) {
        let mut cells: Vec<Cow<'_, str>> = record.iter().map(manifest_text::cell).collect();
        // Spreadsheets write rows of delimiters below the last one, and delimiters behind the last
        // column.
        let is_blank = |cell: &Cow<'_, str>| cell.trim().is_empty();
        if cells.iter().all(is_blank) {
            return;
        }
        let fields = cells.len();
        while cells.len() > self.columns.count && cells.last().is_some_and(is_blank) {
            cells.pop();
        }
        // They also leave out empty cells at the end, but a row that was cut off is as short.
        if !is_cut_off && cells.len() >= self.columns.needed() {
            cells.resize(cells.len().max(self.columns.count), Cow::Borrowed(""));
        }
        if record
            .iter()
            .any(|field| std::str::from_utf8(field).is_err())
        {
            self.legacy += 1;
        }
        let candidate = match cells.len() == self.columns.count {
            true => self.candidate(&cells, line),
            false => Err((
                RejectReason::BadRow,
                format!(
                    "line {line}: {fields} fields, the header has {}",
                    self.columns.count
                ),
            )),
        };
        match candidate {
            Ok(candidate) => {
                if candidate.split.is_none() {
                    self.without_split.push(line);
                }
                self.candidates.push(candidate);
            }
            Err((reason, example)) => self.rejects.add(reason, example),
        }
    }

    fn candidate(
        &mut self,
        cells: &[Cow<'_, str>],
        line: u64,
    ) -> Result<Candidate, (RejectReason, String)> {
        let bad = |what: String| (RejectReason::BadRow, format!("line {line}: {what}"));
        let cell = |index: usize| cells[index].trim();

        let path = cell(self.columns.path);
        if path.is_empty() {
            return Err(bad("the path is empty".to_owned()));
        }
        let found = self.paths.find(path)?;
        let age_text = cell(self.columns.age);
        let age = manifest_text::number(age_text, self.delimiter)
            .ok_or_else(|| bad(format!("the age {age_text:?} is not a number")))?;
        if !self.options.ages.contains(age) {
            let example = format!("{}: age {age_text}", found.name);
            return Err((RejectReason::AgeOutOfRange, example));
        }
        let name = self.columns.split.map_or("", cell);
        let split = self.splits.get(name);
        if split.is_none() && !name.is_empty() {
            let shown: String = name.chars().take(SHOWN_SPLIT).collect();
            return Err(bad(format!("the split must be {ACCEPTED}, got {shown:?}")));
        }
        // Joining an absolute path returns that path.
        let path = self.directory.join(&found.on_disk);
        if !self.seen.insert(found.on_disk) {
            return Err((RejectReason::DuplicateRow, found.name));
        }
        let labels = self.columns.labels.iter();
        let labels = labels
            .map(|(index, label)| (label.as_str(), cell(*index)))
            .filter(|(_, value)| !value.is_empty());
        Ok(Candidate {
            path,
            name: found.name,
            age,
            labels: self.labels.labels(labels),
            split,
            by_content: false,
        })
    }

    fn finish(mut self) -> Listing {
        let split_given = self.candidates.len() > self.without_split.len();
        if split_given {
            self.candidates
                .retain(|candidate| candidate.split.is_some());
            for line in self.without_split {
                self.rejects.add(
                    RejectReason::BadRow,
                    format!("line {line}: the split is empty while other rows have one"),
                );
            }
        }
        self.candidates
            .sort_unstable_by(|one, other| one.name.cmp(&other.name));
        let legacy = (self.legacy > 0).then(|| {
            format!(
                "{} rows of the manifest are not in UTF-8 and were read as Windows-1252; if names with accents are missing, save it as UTF-8",
                self.legacy
            )
        });
        let doubts = legacy.into_iter().collect();
        Listing {
            candidates: self.candidates,
            rejects: self.rejects,
            ignored: 0,
            skipped: Skipped::default(),
            split_given,
            left_out_columns: LeftOutColumns::default(),
            warnings: Vec::new(),
            doubts,
        }
    }
}
