//! Text in aligned columns.

use crate::cli::{error::Error, output::Output};

const GAP: &str = "  ";

/// Prints rows below a header, each column as wide as its widest cell.
pub(crate) fn print(output: &Output, header: &[&str], rows: &[Vec<String>]) -> Result<(), Error> {
    lines(header, rows)
        .iter()
        .try_for_each(|line| output.line(line))
}

pub(crate) fn lines(header: &[&str], rows: &[Vec<String>]) -> Vec<String> {
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
pub(crate) fn line(cells: &[String], widths: &[usize]) -> String {
    let padded: Vec<String> = cells
        .iter()
        .zip(widths)
        .map(|(cell, &wide)| format!("{cell}{}", " ".repeat(wide.saturating_sub(width(cell)))))
        .collect();
    padded.join(GAP).trim_end().to_owned()
}

/// Number of characters, which is the displayed width in most scripts.
pub(crate) fn width(text: &str) -> usize {
    text.chars().count()
}
