//! Decides which further columns of a manifest are labels, the groups of an evaluation.
//!
//! Tables have columns that define no groups: the index of pandas, names, addresses, bounding
//! boxes, measurements, or the pixels as text. A first pass over the rows keeps a bounded number
//! of distinct values for each column and decides; the second pass stores the values of the
//! remaining columns only, so that the memory of a dataset does not depend on the others.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
};

use super::left_out::{LeftOutColumns, LeftOutReason, MAX_LENGTH};

/// Most columns that are used as labels; further columns are left out.
pub(super) const MAX_LABEL_COLUMNS: usize = 32;
/// Most columns that are examined.
const MAX_EXAMINED: usize = 4_096;
/// Most distinct values of a label.
const MAX_VALUES: usize = 100;
/// Most distinct whole numbers that are codes of groups, such as the 31 days of a month.
const MAX_CODES: usize = 32;
/// Most distinct numbers with decimals that are codes of groups.
const MAX_DECIMAL_CODES: usize = 10;
/// With fewer rows, a value that occurs once is not a sign of an identifier.
const FEW_ROWS: u64 = 10;

/// The columns of a manifest that may be labels.
#[derive(Debug)]
pub(super) struct LabelColumns(Vec<Column>);

#[derive(Debug)]
struct Column {
    index: usize,
    name: String,
    verdict: Result<Values, LeftOutReason>,
}

impl LabelColumns {
    /// Starts with columns by index and name, in the order of the manifest.
    pub(super) fn new(columns: impl IntoIterator<Item = (usize, String)>) -> Self {
        let mut found: Vec<Column> = Vec::new();
        let mut names = HashSet::from(["age".to_owned()]);
        for (index, name) in columns {
            let verdict = if is_unnamed(&name) {
                Err(LeftOutReason::Unnamed)
            } else if is_long(&name) {
                Err(LeftOutReason::LongValues)
            } else if !names.insert(name.clone()) {
                Err(LeftOutReason::NameTaken)
            } else if found.len() >= MAX_EXAMINED {
                Err(LeftOutReason::TooManyColumns)
            } else {
                Ok(Values::default())
            };
            found.push(Column {
                index,
                name,
                verdict,
            });
        }
        LabelColumns(found)
    }

    pub(super) fn add_row<'a>(&mut self, cell: impl Fn(usize) -> Cow<'a, str>) {
        for column in &mut self.0 {
            let Ok(values) = &mut column.verdict else {
                continue;
            };
            if let Err(reason) = values.add(cell(column.index).trim()) {
                // This frees the values.
                column.verdict = Err(reason);
            }
        }
    }

    /// Returns the columns that are labels, and the others.
    pub(super) fn finish(self) -> (Vec<(usize, String)>, LeftOutColumns) {
        let (mut labels, mut left_out) = (Vec::new(), LeftOutColumns::default());
        for column in self.0 {
            let reason = match column.verdict {
                Ok(values) => values.problem(),
                Err(reason) => Some(reason),
            };
            match reason {
                Some(reason) => left_out.add(&column.name, reason),
                None if labels.len() >= MAX_LABEL_COLUMNS => {
                    left_out.add(&column.name, LeftOutReason::TooManyColumns);
                }
                None => labels.push((column.index, column.name)),
            }
        }
        (labels, left_out)
    }
}

/// Distinct values of a column and their counts.
#[derive(Debug, Default)]
struct Values(HashMap<Box<str>, u64>);

impl Values {
    fn add(&mut self, value: &str) -> Result<(), LeftOutReason> {
        if value.is_empty() {
            return Ok(());
        }
        if let Some(count) = self.0.get_mut(value) {
            *count += 1;
            return Ok(());
        }
        if is_long(value) {
            return Err(LeftOutReason::LongValues);
        }
        if self.0.len() == MAX_VALUES {
            return Err(self.of_numbers().unwrap_or(LeftOutReason::TooManyValues));
        }
        self.0.insert(value.into(), 1);
        Ok(())
    }

    /// Returns the reason why these values do not define groups, if there is one.
    fn problem(&self) -> Option<LeftOutReason> {
        let rows: u64 = self.0.values().sum();
        let unique = self.0.values().filter(|count| **count == 1).count() as u64;
        let is_unique = rows >= FEW_ROWS && 2 * unique > rows;
        self.of_numbers()
            .or(is_unique.then_some(LeftOutReason::UniqueValues))
    }

    /// Returns the reason if the values are numbers that do not define groups.
    fn of_numbers(&self) -> Option<LeftOutReason> {
        let all = |is_such: fn(&str) -> bool| {
            !self.0.is_empty() && self.0.keys().all(|value| is_such(value))
        };
        if self.0.len() > 1 && all(is_list_of_numbers) {
            return Some(LeftOutReason::NumberLists);
        }
        let most = match all(is_whole_number) {
            true => MAX_CODES,
            false => MAX_DECIMAL_CODES,
        };
        (self.0.len() > most && all(is_number)).then_some(LeftOutReason::Numbers)
    }
}

fn is_long(text: &str) -> bool {
    // A character has at most four bytes.
    text.len() > 4 * MAX_LENGTH || text.chars().count() > MAX_LENGTH
}

/// `unnamed: 0`; names are in lower case.
fn is_unnamed(name: &str) -> bool {
    name.strip_prefix("unnamed: ")
        .is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
}

fn number(text: &str) -> Option<f64> {
    text.parse().ok().or_else(|| {
        // With a decimal comma.
        let (whole, decimals) = text.split_once(',')?;
        format!("{whole}.{decimals}").parse().ok()
    })
}

fn is_number(text: &str) -> bool {
    number(text).is_some()
}

/// Also `3.0`, which is how pandas writes whole numbers of a column with gaps.
fn is_whole_number(text: &str) -> bool {
    number(text).is_some_and(|number| number.fract() == 0.0)
}

/// Four or more numbers, such as `[1, 2, 30, 40]`, `1 2 30 40` or `(1;2;30;40)`.
fn is_list_of_numbers(text: &str) -> bool {
    let inner = text.trim_matches(['[', ']', '(', ')', '{', '}']);
    let mut count = 0;
    for item in inner.split([' ', ',', ';', '\t', '|']) {
        if item.is_empty() {
            continue;
        }
        if item.parse::<f64>().is_err() {
            return false;
        }
        count += 1;
    }
    count >= 4
}

#[cfg(test)]
mod tests {
    use super::{super::left_out::LISTED, *};

    /// The labels, and the others with their reasons, of columns given by name and value of each
    /// row.
    fn decide(
        rows: usize,
        columns: &[(&str, &dyn Fn(usize) -> String)],
    ) -> (Vec<String>, Vec<(String, &'static str)>) {
        let names = columns.iter().map(|(name, _)| (*name).to_owned());
        let mut labels = LabelColumns::new(names.enumerate());
        for row in 0..rows {
            let cells: Vec<String> = columns.iter().map(|(_, value)| value(row)).collect();
            labels.add_row(|index| Cow::Borrowed(&cells[index]));
        }
        let (labels, left_out) = labels.finish();
        assert_eq!(left_out.count, left_out.listed.len() as u64);
        (
            labels.into_iter().map(|(_, name)| name).collect(),
            left_out
                .listed
                .into_iter()
                .map(|column| (column.name, column.reason.label()))
                .collect(),
        )
    }

    fn one(rows: usize, value: impl Fn(usize) -> String) -> Option<&'static str> {
        let (labels, left_out) = decide(rows, &[("x", &value)]);
        assert_eq!(labels.len() + left_out.len(), 1);
        left_out.first().map(|(_, reason)| *reason)
    }

    #[test]
    fn groups_are_kept_and_identifiers_are_not_in_a_small_and_a_large_table() {
        for rows in [30, 90, 20_000] {
            let (labels, left_out) = decide(
                rows,
                &[
                    ("unnamed: 0", &|row| row.to_string()),
                    ("gender", &|row| ["f", "m"][row % 2].to_owned()),
                    ("camera", &|row| format!("camera {}", row % 3)),
                    ("city", &|row| format!("city {}", (row * row) % 11)),
                    ("month", &|row| (1 + row % 12).to_string()),
                    ("name", &|row| format!("person {row}")),
                    ("bbox", &|row| format!("[{row}, 2, 30, 40]")),
                    ("sharpness", &|row| format!("0.{:03}", (row * 37) % 1000)),
                    ("width", &|row| (100 + (row * 7) % 61).to_string()),
                    ("pixels", &|row| format!("{row} 0 ").repeat(100)),
                ],
            );
            assert_eq!(labels, ["gender", "camera", "city", "month"], "{rows} rows");
            let reasons: Vec<&str> = left_out.iter().map(|(_, reason)| *reason).collect();
            assert_eq!(reasons[0], "unnamed");
            assert_eq!(reasons[2], "number_lists");
            assert_eq!(reasons[5], "long_values");
            assert_eq!(left_out.len(), 6);
        }
    }

    #[test]
    fn each_column_is_left_out_for_its_own_reason() {
        type Case<'a> = (usize, &'a dyn Fn(usize) -> String, Option<&'a str>);
        let cases: [Case<'_>; 14] = [
            (1000, &|row| format!("id-{row}"), Some("too_many_values")),
            (50, &|row| format!("id-{row}"), Some("unique_values")),
            // Half of the rows share their value with another one.
            (50, &|row| format!("id-{}", row.min(25)), None),
            (
                50,
                &|row| format!("id-{}", row.min(26)),
                Some("unique_values"),
            ),
            (1000, &|row| row.to_string(), Some("numbers")),
            (1000, &|row| (row % 32).to_string(), None),
            (1000, &|row| (row % 33).to_string(), Some("numbers")),
            (1000, &|row| format!("{}.0", row % 32), None),
            (1000, &|row| format!("{}.5", row % 10), None),
            (1000, &|row| format!("{}.5", row % 11), Some("numbers")),
            (1000, &|row| format!("{},5", row % 11), Some("numbers")),
            (
                1000,
                &|row| format!("{} 1 2 3", row % 5),
                Some("number_lists"),
            ),
            (1000, &|row| format!("site {}", row % 100), None),
            (1000, &|_| "x".repeat(101), Some("long_values")),
        ];
        for (number, (rows, value, expected)) in cases.into_iter().enumerate() {
            assert_eq!(one(rows, value), expected, "case {number}");
        }
    }

    #[test]
    fn few_rows_and_empty_cells_lose_no_column() {
        assert_eq!(one(4, |row| format!("site {row}")), None);
        assert_eq!(one(0, |_| String::new()), None);
        let rare = |row| match row % 100 {
            0 => "yes".to_owned(),
            _ => String::new(),
        };
        assert_eq!(one(10_000, rare), None);
    }

    #[test]
    fn names_are_told_apart_and_columns_are_limited() {
        let value = |row: usize| ["f", "m"][row % 2].to_owned();
        let names: Vec<String> = (0..5_000).map(|number| format!("c{number}")).collect();
        let columns = names.iter().cloned().enumerate();
        let mut labels = LabelColumns::new(columns);
        for row in 0..20 {
            let cell = value(row);
            labels.add_row(|_| Cow::Borrowed(&cell));
        }
        let (labels, left_out) = labels.finish();
        assert_eq!(labels.len(), MAX_LABEL_COLUMNS);
        assert_eq!(labels[0], (0, "c0".to_owned()));
        assert_eq!(
            (left_out.count, left_out.listed.len()),
            (5_000 - MAX_LABEL_COLUMNS as u64, LISTED)
        );
        let long = "n".repeat(200);
        let (labels, left_out) = decide(
            20,
            &[
                ("sex", &value),
                ("sex", &value),
                ("age", &value),
                (&long, &value),
            ],
        );
        assert_eq!(labels, ["sex"]);
        let reasons: Vec<_> = left_out.iter().map(|(_, reason)| *reason).collect();
        assert_eq!(reasons, ["name_taken", "name_taken", "long_values"]);
        assert_eq!(left_out[2].0.len(), 100);
    }
}
