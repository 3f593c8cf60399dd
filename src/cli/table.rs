//! Columns of text.

use super::{Error, Output};

const GAP: &str = "  ";

/// Prints rows under a header, columns as wide as their widest cell.
pub(super) fn print(output: &Output, header: &[&str], rows: &[Vec<String>]) -> Result<(), Error> {
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
    for row in std::iter::once(&titles).chain(rows) {
        output.line(&line(row, &widths))?;
    }
    Ok(())
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
