//! Arguments of the commands that read a dataset: the dataset, its age pattern and columns.

use std::path::PathBuf;

use crate::{
    cli::{args::paths::absolute, error::Error},
    dataset::{ColumnNames, manifest_columns},
    names,
    proto::v1::{DatasetSpec, ManifestColumns},
};

/// Id of the group of [`DatasetArg`]'s arguments, for options that need a dataset.
pub(crate) const DATASET_GROUP: &str = "given_dataset";

/// The dataset as an argument; as an option in the form of earlier releases.
#[derive(Debug, clap::Args)]
#[group(id = DATASET_GROUP, multiple = false)]
pub(crate) struct DatasetArg {
    /// `datasets/ID`, or a directory of images whose names start with the age, or a CSV/TSV file
    /// with the columns `path` and `age`; on the server's disk
    #[arg(value_name = "DATASET")]
    dataset: Option<PathBuf>,
    #[arg(long = "dataset", value_name = "DATASET", hide = true)]
    dataset_flag: Option<PathBuf>,
}

impl DatasetArg {
    pub(crate) fn given(self) -> Option<PathBuf> {
        self.dataset.or(self.dataset_flag)
    }

    /// # Errors
    /// A missing dataset.
    pub(crate) fn required(self) -> Result<PathBuf, Error> {
        self.given().ok_or_else(|| {
            Error::Usage(
                "a dataset is required: a directory or CSV file on the server, or `datasets/ID`; \
                 `visage synth faces/` draws a small one"
                    .to_owned(),
            )
        })
    }
}

#[derive(Debug, Default, clap::Args)]
pub(crate) struct ReadingArgs {
    /// Pattern for the age in the path of an image: a regular expression with a group `age`, such
    /// as '_(?<age>\d+)\.', or agedb, morph, fgnet, cacd, afad, directory (one directory per age)
    /// or utkface (the age comes first) [default: that of `datasets/ID`, else the file name starts
    /// with the age]
    #[arg(long, value_name = "PATTERN")]
    pub(crate) age_pattern: Option<String>,
    /// Columns of the manifest, such as `age=years,path=image_file`; also `split=` [default: those
    /// of `datasets/ID`, else path, file, image or filename, and age and split]
    #[arg(long = "column", value_name = "ROLE=HEADING", value_parser = parse_columns)]
    columns: Vec<ColumnNames>,
}

impl ReadingArgs {
    pub(crate) fn is_given(&self) -> bool {
        self.age_pattern.is_some() || !self.columns.is_empty()
    }

    /// The columns in the API's form; a later `--column` overrides an earlier one.
    pub(crate) fn columns(&self) -> Option<ManifestColumns> {
        let mut all = ColumnNames::default();
        for given in &self.columns {
            for (role, heading) in given.roles() {
                if !heading.is_empty() {
                    heading.clone_into(heading_of(&mut all, role)?);
                }
            }
        }
        manifest_columns(&all)
    }
}

/// The spec of a dataset: `datasets/ID` is a named dataset, anything else, such as
/// `./datasets/ID`, a path.
pub(crate) fn dataset_spec(dataset: PathBuf, reading: &ReadingArgs) -> Result<DatasetSpec, Error> {
    let spec = DatasetSpec {
        age_pattern: reading.age_pattern.clone().unwrap_or_default(),
        columns: reading.columns(),
        ..DatasetSpec::default()
    };
    match dataset.to_str() {
        Some(name) if names::dataset_id(name).is_ok() => Ok(DatasetSpec {
            name: name.to_owned(),
            ..spec
        }),
        _ => Ok(DatasetSpec {
            path: absolute(dataset)?,
            ..spec
        }),
    }
}

fn heading_of<'a>(names: &'a mut ColumnNames, role: &str) -> Option<&'a mut String> {
    match role {
        "path" => Some(&mut names.path),
        "age" => Some(&mut names.age),
        "split" => Some(&mut names.split),
        _ => None,
    }
}

/// Parses a comma-separated list of `ROLE=HEADING`. A heading may contain commas.
fn parse_columns(text: &str) -> Result<ColumnNames, String> {
    let mut names = ColumnNames::default();
    let mut last: Option<&str> = None;
    for part in text.split(',') {
        let named = part
            .split_once('=')
            .map(|(role, heading)| (role.trim(), heading));
        match (named, last) {
            (Some((role, heading)), _) if heading_of(&mut names, role).is_some() => {
                if let Some(target) = heading_of(&mut names, role) {
                    heading.clone_into(target);
                }
                last = Some(role);
            }
            // The comma is part of the previous heading.
            (_, Some(role)) => {
                if let Some(target) = heading_of(&mut names, role) {
                    target.push(',');
                    target.push_str(part);
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
    fn columns_may_contain_commas() {
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
            ("age=x,path=X", "age must differ from the column path"),
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
