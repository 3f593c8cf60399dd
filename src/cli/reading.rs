//! Options of the commands that read a dataset: age pattern and columns.

use crate::{
    dataset::{ColumnNames, manifest_columns},
    proto::v1::ManifestColumns,
};

/// Options for reading the ages of a dataset.
#[derive(Debug, Default, clap::Args)]
pub(super) struct ReadingArgs {
    /// Pattern that reads the age from the path of an image: a regular expression with a group `age`, such as '_(?<age>\d+)\.', or agedb, morph, fgnet, cacd,
    /// afad, directory (a directory per age) or utkface (the age comes first) [default: that of `datasets/ID`, else the file names begin with the age]
    #[arg(long, value_name = "PATTERN")]
    pub(super) age_pattern: Option<String>,
    /// Columns to read from the manifest, such as `age=years,path=image_file`; also `split=` [default: those of `datasets/ID`, else path, file, image or filename, and age and
    /// split]
    #[arg(long = "column", value_name = "ROLE=HEADING", value_parser = parse_columns)]
    columns: Vec<ColumnNames>,
}

impl ReadingArgs {
    /// True if any of them is set.
    pub(super) fn is_given(&self) -> bool {
        self.age_pattern.is_some() || !self.columns.is_empty()
    }

    /// All of them in the API's form; a later `--column` wins.
    pub(super) fn columns(&self) -> Option<ManifestColumns> {
        let mut all = ColumnNames::default();
        for given in &self.columns {
            for (role, heading) in given.roles() {
                if !heading.is_empty() {
                    heading.clone_into(place(&mut all, role)?);
                }
            }
        }
        manifest_columns(&all)
    }
}

/// Where the heading of a role is kept.
fn place<'a>(names: &'a mut ColumnNames, role: &str) -> Option<&'a mut String> {
    match role {
        "path" => Some(&mut names.path),
        "age" => Some(&mut names.age),
        "split" => Some(&mut names.split),
        _ => None,
    }
}

/// Reads `ROLE=HEADING`, and several of them with commas between. A heading may have commas itself.
fn parse_columns(text: &str) -> Result<ColumnNames, String> {
    let mut names = ColumnNames::default();
    let mut last: Option<&str> = None;
    for part in text.split(',') {
        let named = part
            .split_once('=')
            .map(|(role, heading)| (role.trim(), heading));
        match (named, last) {
            (Some((role, heading)), _) if place(&mut names, role).is_some() => {
                if let Some(place) = place(&mut names, role) {
                    heading.clone_into(place);
                }
                last = Some(role);
            }
            // The comma was a part of the heading before it.
            (_, Some(role)) => {
                if let Some(place) = place(&mut names, role) {
                    place.push(',');
                    place.push_str(part);
                }
            }
            (_, None) => {
                return Err(format!(
                    "must be ROLE=HEADING with the role path, age or split, got {part:?}"
                ));
            }
        }
    }
    names
        .validate()
        .map_err(|(role, description)| format!("{role} {description}"))?;
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<[String; 3], String> {
        let names = parse_columns(text)?;
        Ok(names.roles().map(|(_, heading)| heading.to_owned()))
    }

    #[test]
    fn columns_are_read_with_commas_between_and_inside() {
        let cases = [
            ("age=years", ["", "years", ""]),
            ("age=years,path=image_file", ["image_file", "years", ""]),
            (
                "age=years, path=img,split=subset",
                ["img", "years", "subset"],
            ),
            ("age=age, in years,path=a=b", ["a=b", "age, in years", ""]),
        ];
        for (text, expected) in cases {
            assert_eq!(parsed(text), Ok(expected.map(str::to_owned)), "{text}");
        }
        for (text, part) in [
            ("years", "got \"years\""),
            ("label=x", "with the role path, age or split"),
            ("age=x,path=X", "age must be another column than path"),
        ] {
            let error = parsed(text).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn columns_of_several_options_are_joined() {
        let args = ReadingArgs {
            age_pattern: None,
            columns: vec![
                parse_columns("age=years,path=a").unwrap(),
                parse_columns("path=b").unwrap(),
            ],
        };
        let columns = args.columns().unwrap();
        assert_eq!(
            (columns.path.as_str(), columns.age.as_str()),
            ("b", "years")
        );
        assert_eq!(ReadingArgs::default().columns(), None);
    }
}
