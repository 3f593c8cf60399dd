//! Column names of a manifest that differ from the usual ones.

/// Longest heading in bytes.
const MAX_HEADING_BYTES: usize = 255;

/// Headings of the columns to read; an empty one stands for the usual names. Compared without case
/// and surrounding blanks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ColumnNames {
    /// Column of the path. Default: the first of `path`, `file`, `image` and `filename` that
    /// exists.
    pub path: String,
    /// Column of the age in years. Default: `age`.
    pub age: String,
    /// Column of the split. Default: `split`, if it exists.
    pub split: String,
}

impl ColumnNames {
    /// Returns all three as (role, heading).
    pub(crate) fn roles(&self) -> [(&'static str, &str); 3] {
        [
            ("path", &self.path),
            ("age", &self.age),
            ("split", &self.split),
        ]
    }

    /// Checks each heading, and that no two are equal.
    ///
    /// # Errors
    /// The role of the wrong heading and the rule.
    pub(crate) fn validate(&self) -> Result<(), (&'static str, String)> {
        let mut seen: Vec<(&str, String)> = Vec::new();
        for (role, heading) in self.roles() {
            if heading.is_empty() {
                continue;
            }
            let plain = normal(heading);
            if plain.is_empty() || heading.len() > MAX_HEADING_BYTES {
                let got = heading.len();
                let rule =
                    format!("must be a heading of 1 to {MAX_HEADING_BYTES} bytes, got {got} bytes");
                return Err((role, rule));
            }
            if let Some((other, _)) = seen.iter().find(|(_, known)| *known == plain) {
                return Err((
                    role,
                    format!("must differ from the column {other}, got {heading:?}"),
                ));
            }
            seen.push((role, plain));
        }
        Ok(())
    }
}

/// Normalizes a heading for comparison: lower case, single blanks between words. Spreadsheets break
/// long headings into lines.
pub(super) fn normal(heading: &str) -> String {
    let words: Vec<String> = heading.split_whitespace().map(str::to_lowercase).collect();
    words.join(" ")
}

/// Lists headings for an error, limited in number and length.
pub(super) fn listed(headings: &[String]) -> String {
    const MOST: usize = 50;
    const LONGEST: usize = 60;
    let first = headings.iter().take(MOST);
    let mut shown: Vec<String> = first
        .map(|heading| match heading.char_indices().nth(LONGEST) {
            Some((end, _)) => format!("{}…", &heading[..end]),
            None => heading.clone(),
        })
        .collect();
    if headings.len() > MOST {
        shown.push(format!("and {} more", headings.len() - MOST));
    }
    shown.join(", ")
}

/// Returns the heading that most likely has a role, for an example in an error.
pub(super) fn likely<'a>(role: &str, headings: &'a [String]) -> &'a str {
    let hints: &[&str] = match role {
        "path" => &["path", "file", "image", "img", "photo", "name"],
        "age" => &["age", "years", "label"],
        _ => &[],
    };
    // `image` contains `age`.
    let is_likely = |hint: &str, heading: &str| {
        let heading = normal(heading).replace("image", "img");
        heading.contains(&hint.replace("image", "img"))
    };
    let likely = hints
        .iter()
        .find_map(|hint| headings.iter().find(|heading| is_likely(hint, heading)));
    // Of a header that is not one, such as a row of pixels.
    let likely = likely.filter(|heading| heading.len() <= MAX_HEADING_BYTES);
    likely.map_or("HEADING", String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headings_are_refused_by_role() {
        let names = |path: &str, age: &str| ColumnNames {
            path: path.to_owned(),
            age: age.to_owned(),
            split: String::new(),
        };
        assert_eq!(ColumnNames::default().validate(), Ok(()));
        assert_eq!(names("image_file", "years").validate(), Ok(()));
        assert_eq!(
            names("Years ", "years").validate(),
            Err((
                "age",
                "must differ from the column path, got \"years\"".to_owned()
            ))
        );
        assert_eq!(
            names("", " ").validate(),
            Err((
                "age",
                "must be a heading of 1 to 255 bytes, got 1 bytes".to_owned()
            ))
        );
        assert_eq!(names("", &"x".repeat(256)).validate().unwrap_err().0, "age");
        assert_eq!(names("", &"x".repeat(255)).validate(), Ok(()));
    }

    #[test]
    fn headings_are_shown_up_to_a_length() {
        let headings = |names: &[&str]| {
            names
                .iter()
                .map(|name| (*name).to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(listed(&headings(&["Name", "Years"])), "Name, Years");
        assert_eq!(
            listed(&headings(&[&"é".repeat(61)])),
            format!("{}…", "é".repeat(60))
        );
        let many = listed(&headings(&["a"; 2_306]));
        assert!(many.ends_with("a, and 2256 more"), "{many}");
    }

    #[test]
    fn the_example_of_an_error_is_a_column_that_could_be_meant() {
        let of = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<_>>();
        let appa_real = of("file_name,num_ratings,apparent_age_avg,apparent_age_std,real_age");
        assert_eq!(likely("path", &appa_real), "file_name");
        assert_eq!(likely("age", &appa_real), "apparent_age_avg");
        assert_eq!(
            likely("path", &of("gender,age,full_path,face_score")),
            "full_path"
        );
        assert_eq!(likely("age", &of("image_path,Years")), "Years");
        assert_eq!(likely("age", &of("a,b")), "HEADING");
    }
}
