//! Columns of text.

use prost_types::Timestamp;

use super::{Error, Output};

const GAP: &str = "  ";

/// Prints rows under a header, columns as wide as their widest cell.
pub(super) fn print(output: &Output, header: &[&str], rows: &[Vec<String>]) -> Result<(), Error> {
    lines(header, rows)
        .iter()
        .try_for_each(|line| output.line(line))
}

/// The same as lines.
pub(super) fn lines(header: &[&str], rows: &[Vec<String>]) -> Vec<String> {
    let widths: Vec<usize> = header
        .iter()
        .enumerate()
        .map(|(column, title)| {
            let cells = rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| width(cell));
            cells.chain([width(title)]).max().unwrap_or(0)
        })
        .collect();
    let titles: Vec<String> = header.iter().map(|&title| title.to_owned()).collect();
    let all = std::iter::once(&titles).chain(rows);
    all.map(|row| line(row, &widths)).collect()
}

/// A moment to the second, such as `2026-01-31T12:00:00Z`; nothing when there is none.
pub(super) fn moment(time: Option<Timestamp>) -> String {
    time.map(|time| Timestamp { nanos: 0, ..time }.to_string())
        .unwrap_or_default()
}

/// One row; the last column is not padded.
pub(super) fn line(cells: &[String], widths: &[usize]) -> String {
    let padded: Vec<String> = cells
        .iter()
        .zip(widths)
        .map(|(cell, &wide)| format!("{cell}{}", " ".repeat(wide.saturating_sub(width(cell)))))
        .collect();
    padded.join(GAP).trim_end().to_owned()
}

/// Characters, which is the width for all but a few scripts.
pub(super) fn width(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_told_to_the_second() {
        // `date --utc --date=@1767225600` says when this is.
        let time = Timestamp {
            seconds: 1_767_225_600,
            nanos: 123_456_789,
        };
        assert_eq!(moment(Some(time)), "2026-01-01T00:00:00Z");
        assert_eq!(moment(None), "");
    }
}
