//! First pass over the rows of a manifest: decides which columns are labels and which split names
//! occur.
//!
//! A column is a label only if its values define groups, and the meaning of some split names
//! depends on the others.

use std::borrow::Cow;

use csv::{ByteRecord, Reader};

use super::{label_columns::LabelColumns, split_names::SplitNames};

pub(super) struct Survey {
    pub(super) labels: LabelColumns,
    pub(super) split_names: SplitNames,
}

pub(super) enum Error {
    Cancelled,
    Csv(csv::Error),
}

/// Columns to examine.
pub(super) struct Wanted<'a> {
    /// Index and name of the columns that may be labels.
    pub(super) labels: &'a [(usize, String)],
    /// Index of the split column.
    pub(super) split: Option<usize>,
    /// Text of a cell.
    pub(super) cell: fn(&[u8]) -> Cow<'_, str>,
    /// Returns true for a row with the right number of fields; others are rejected later.
    pub(super) is_row: &'a dyn Fn(&ByteRecord) -> bool,
}

impl Survey {
    pub(super) fn read(
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
