//! Marks of lists whose rows have errors on different validation images.

use std::collections::HashMap;

use crate::cli::output::table;

/// Column of the marks.
const COLUMN: &str = "VAL SET";

/// Lines below a table with marks.
const LEGEND: [&str; 2] = [
    "VAL SET: a letter for each set of validation images. Compare losses and errors only within a set;",
    "to compare versions across sets, evaluate each on the same images: `visage evaluate DATASET --version N`.",
];

/// A table with the marks in front of the column at `position`, and their legend; without both if
/// no row has a mark.
pub(crate) fn table_lines(
    mut header: Vec<&str>,
    mut rows: Vec<Vec<String>>,
    position: usize,
    marks: Option<Vec<String>>,
) -> Vec<String> {
    let Some(marks) = marks else {
        return table::lines(&header, &rows);
    };
    header.insert(position, COLUMN);
    for (row, mark) in rows.iter_mut().zip(marks) {
        row.insert(position, mark);
    }
    let mut lines = table::lines(&header, &rows);
    lines.extend(LEGEND.map(str::to_owned));
    lines
}

/// A letter for each set of validation images, from their digests, newest first; `None` if all rows
/// have the same images, so that no marks are needed. A row without a digest has no letter.
pub(crate) fn marks<'a>(digests: impl DoubleEndedIterator<Item = &'a str>) -> Option<Vec<String>> {
    let mut letters: HashMap<&str, String> = HashMap::new();
    // The oldest row is `A`, so that a new row changes no other mark.
    let mut marks: Vec<String> = digests
        .rev()
        .map(|digest| match digest {
            "" => String::new(),
            digest => {
                let count = letters.len();
                letters
                    .entry(digest)
                    .or_insert_with(|| letter(count))
                    .clone()
            }
        })
        .collect();
    marks.reverse();
    (letters.len() > 1).then_some(marks)
}

/// `A` to `Z`, then `A1` and so on.
fn letter(index: usize) -> String {
    let letter = char::from(b'A' + (index % 26) as u8);
    match index / 26 {
        0 => letter.to_string(),
        round => format!("{letter}{round}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_a_legend_only_with_marks() {
        let rows = || vec![vec!["2".to_owned(), "4.72".to_owned()]];
        let table = |marks| table_lines(vec!["VERSION", "VAL MAE"], rows(), 1, marks);
        assert_eq!(table(None), ["VERSION  VAL MAE", "2        4.72"]);
        let lines = table(Some(vec!["B".to_owned()]));
        assert_eq!(lines[0], "VERSION  VAL SET  VAL MAE");
        assert_eq!(lines[1], "2        B        4.72");
        let legend = lines[2..].join(" ");
        assert!(
            legend.starts_with("VAL SET: a letter for each set"),
            "{legend}"
        );
        assert!(legend.contains("`visage evaluate"), "{legend}");
    }

    #[test]
    fn rows_with_different_images_are_marked_from_the_oldest() {
        let marked = marks(["c", "a", "", "c", "b", "a"].into_iter()).unwrap();
        assert_eq!(marked, ["C", "A", "", "C", "B", "A"]);
        assert_eq!(marks(["a", "", "a"].into_iter()), None);
        assert_eq!(marks([].into_iter()), None);
        assert_eq!(letter(27), "B1");
    }
}
