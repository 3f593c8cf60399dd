//! Columns of a manifest.

use std::path::Path;

use csv::ByteRecord;

use super::{
    ColumnNames, Error,
    columns::{likely, listed, normal},
    manifest_text::cell,
};

/// The accepted names of the column with the path, best first.
const PATH_COLUMNS: [&str; 4] = ["path", "file", "image", "filename"];
const AGE_COLUMN: &str = "age";
const SPLIT_COLUMN: &str = "split";

/// Indices of the columns.
pub(super) struct Columns {
    pub(super) path: usize,
    pub(super) age: usize,
    pub(super) split: Option<usize>,
    pub(super) labels: Vec<(usize, String)>,
    pub(super) count: usize,
}

impl Columns {
    /// Smallest number of fields of a row.
    pub(super) fn needed(&self) -> usize {
        1 + self.path.max(self.age).max(self.split.unwrap_or(0))
    }

    pub(super) fn find(
        manifest: &Path,
        header: &ByteRecord,
        names: &ColumnNames,
    ) -> Result<Self, Error> {
        let mut shown: Vec<String> = header
            .iter()
            .map(|name| cell(name).trim().to_owned())
            .collect();
        // Spreadsheets write a delimiter for every column that was ever used.
        while shown.last().is_some_and(String::is_empty) {
            shown.pop();
        }
        let headings: Vec<String> = shown.iter().map(|name| normal(name)).collect();
        let position = |wanted: &str| headings.iter().position(|name| name == wanted);
        let named = |name: &str, usual: &[&str]| match name {
            "" => usual.iter().find_map(|usual| position(usual)),
            name => position(&normal(name)),
        };
        let path = named(&names.path, &PATH_COLUMNS);
        let age = named(&names.age, &[AGE_COLUMN]);
        let split = named(&names.split, &[SPLIT_COLUMN]);
        let is_split_missing = split.is_none() && !names.split.is_empty();
        let (Some(path), Some(age), false) = (path, age, is_split_missing) else {
            let usual = |name: &str, usual: &str| match name {
                "" => usual.to_owned(),
                name => format!("{name:?}"),
            };
            let missing = [
                (
                    path.is_none(),
                    "path",
                    usual(&names.path, "path (or file, image, filename)"),
                ),
                (age.is_none(), "age", usual(&names.age, AGE_COLUMN)),
                (is_split_missing, "split", usual(&names.split, SPLIT_COLUMN)),
            ];
            let missing: Vec<_> = missing
                .iter()
                .filter(|(is_missing, ..)| *is_missing)
                .collect();
            let wanted: Vec<&str> = missing
                .iter()
                .map(|(_, _, wanted)| wanted.as_str())
                .collect();
            let example = missing
                .iter()
                .map(|(_, role, _)| format!("{role}={}", likely(role, &shown)));
            return Err(Error::MissingColumns {
                path: manifest.to_path_buf(),
                missing: wanted.join(" and "),
                found: listed(&shown),
                example: example.collect::<Vec<_>>().join(","),
            });
        };
        let used: Vec<usize> = [Some(path), Some(age), split]
            .into_iter()
            .flatten()
            .collect();
        for index in &used {
            if used.iter().filter(|other| *other == index).count() > 1 {
                let reason = format!(
                    "its column {} cannot be two of path, age and split",
                    shown[*index]
                );
                return Err(failed(manifest, reason));
            }
            let heading = &headings[*index];
            if headings.iter().filter(|other| *other == heading).count() > 1 {
                let reason = format!("two of its columns are named {heading}; rename one of them");
                return Err(failed(manifest, reason));
            }
        }
        let is_label = |index: usize, name: &str| {
            let is_used = index == path || index == age || Some(index) == split;
            !is_used && !name.is_empty() && !PATH_COLUMNS.contains(&name)
        };
        let count = headings.len();
        let labels = headings
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

pub(super) fn failed(manifest: &Path, reason: String) -> Error {
    Error::Manifest {
        path: manifest.to_path_buf(),
        reason,
    }
}
