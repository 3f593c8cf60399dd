//! Columns of text.

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
