//! The first pass over the rows of a manifest: what all rows together say about its columns.
//!
//! A column is a label only where its values are those of groups, and some names of parts mean
//! something only beside the others.

use std::borrow::Cow;

use csv::{ByteRecord, Reader};

use super::label_columns::LabelColumns;
use super::split_names::SplitNames;

/// The values of columns.
pub(super) struct Survey {
    /// Of the columns that may be labels.
    pub(super) labels: LabelColumns,
    /// Of the column of the split.
    pub(super) split_names: SplitNames,
}

/// Why a survey ended early.
pub(super) enum Error {
    /// The caller asked to stop.
    Cancelled,
    /// The rows cannot be read.
    Csv(csv::Error),
}

/// Columns to look at.
pub(super) struct Wanted<'a> {
    /// Index and name of those that may be labels.
    pub(super) labels: &'a [(usize, String)],
    /// Index of the split's.
    pub(super) split: Option<usize>,
    /// Text of a cell.
    pub(super) cell: fn(&[u8]) -> Cow<'_, str>,
    /// True for a row with the right number of fields; others are rejected later.
    pub(super) is_row: &'a dyn Fn(&ByteRecord) -> bool,
}

impl Survey {
    /// Reads all rows.
    pub(super) fn of(
        mut reader: Reader<&[u8]>,
        wanted: &Wanted<'_>,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Self, Error> {
        let mut survey = Survey {
            labels: LabelColumns::new(wanted.labels.iter().cloned()),
            split_names: SplitNames::default(),
        };
        let mut record = ByteRecord::new();
        let mut rows = 0_u64;
        while reader.read_byte_record(&mut record).map_err(Error::Csv)? {
            rows += 1;
            if rows.is_multiple_of(4096) && cancelled() {
                return Err(Error::Cancelled);
            }
            if !(wanted.is_row)(&record) {
                continue;
            }
            let cell = |index| (wanted.cell)(record.get(index).unwrap_or_default());
            survey.labels.add_row(cell);
            if let Some(split) = wanted.split {
                survey.split_names.add(&cell(split));
            }
        }
        Ok(survey)
    }
}
