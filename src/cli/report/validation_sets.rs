//! Marks of lists whose rows have errors on different validation images.

use std::collections::HashMap;

/// Column of the marks.
pub(crate) const COLUMN: &str = "VAL SET";

/// Line below a table with marks.
pub(crate) const EXPLANATION: &str = "Losses and errors are on the validation images of each row; compare only rows with the same VAL SET.";

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
    fn rows_with_different_images_are_marked_from_the_oldest() {
        let marked = marks(["c", "a", "", "c", "b", "a"].into_iter()).unwrap();
        assert_eq!(marked, ["C", "A", "", "C", "B", "A"]);
        assert_eq!(marks(["a", "", "a"].into_iter()), None);
        assert_eq!(marks([].into_iter()), None);
        assert_eq!(letter(27), "B1");
    }
}
