//! The dataset part of a request: which images are read, and how they are split.

use crate::{
    imaging::Limits,
    proto::{
        v1,
        validation::{Check, Range},
    },
};

use super::{
    AgePattern, AgeRange, ColumnNames, Options, SplitFractions, SplitGrouping,
    message::{column_names, manifest_columns},
};

/// Seed of splits and of a training unless the request sets one.
pub(crate) const DEFAULT_SEED: u64 = 42;

/// A checked [`v1::DatasetSpec`] with every default filled in.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DatasetSpec {
    /// `datasets/{id}` of a named dataset; empty for a path.
    pub name: String,
    /// Directory or manifest. For a named dataset its location when the request was accepted.
    pub path: String,
    pub validation_fraction: f64,
    pub test_fraction: f64,
    /// Lowest accepted age in years.
    pub min_age: f64,
    /// Highest accepted age in years.
    pub max_age: f64,
    /// Share of rejected images above which the dataset is refused.
    pub max_reject_share: f64,
    /// Images that stay in the same split.
    pub split_grouping: SplitGrouping,
    pub age_pattern: Option<AgePattern>,
    pub columns: ColumnNames,
}

impl DatasetSpec {
    /// Reads a message and fills in the defaults. `prefix` precedes the field names in violations,
    /// such as `spec.dataset.`.
    pub(crate) fn read(given: Option<&v1::DatasetSpec>, prefix: &str, check: &mut Check) -> Self {
        let empty = v1::DatasetSpec::default();
        let given = given.unwrap_or(&empty);
        let field = |name: &str| format!("{prefix}{name}");
        if given.path.is_empty() {
            check.refuse(
                &field("path"),
                format!(
                    "must not be empty; set it to a directory of images or a CSV manifest on the server, or set {} to a named dataset",
                    field("name")
                ),
            );
        }
        let fraction = Range {
            contains: |value| (0.0..=0.9).contains(&value),
            rule: "from 0 to 0.9",
        };
        let age = Range {
            contains: |value| (0.0..=1_000.0).contains(&value),
            rule: "from 0 to 1000 years",
        };
        let mut number = |name: &str, given, default, allowed| {
            check.number(&field(name), given, default, allowed)
        };
        let spec = DatasetSpec {
            name: given.name.clone(),
            path: given.path.clone(),
            validation_fraction: number(
                "validation_fraction",
                given.validation_fraction,
                0.1,
                fraction,
            ),
            test_fraction: number("test_fraction", given.test_fraction, 0.1, fraction),
            min_age: number("min_age", given.min_age, 0.0, age),
            max_age: number("max_age", given.max_age, 120.0, age),
            max_reject_share: number(
                "max_reject_share",
                given.max_reject_share,
                0.2,
                Range::SHARE,
            ),
            split_grouping: match check.choice(
                &field("split_grouping"),
                given.split_grouping,
                v1::SplitGrouping::Exact,
            ) {
                v1::SplitGrouping::Unspecified | v1::SplitGrouping::Exact => SplitGrouping::Exact,
                v1::SplitGrouping::Near => SplitGrouping::Near,
            },
            age_pattern: AgePattern::parse(&given.age_pattern).unwrap_or_else(|description| {
                check.refuse(&field("age_pattern"), description);
                None
            }),
            columns: column_names(given.columns.as_ref()),
        };
        if let Err((role, description)) = spec.columns.validate() {
            check.refuse(&field(&format!("columns.{role}")), description);
        }
        let held_out = spec.validation_fraction + spec.test_fraction;
        if held_out > 0.95 {
            check.refuse(
                &field("test_fraction"),
                format!(
                    "must leave at least 0.05 of the images for training; validation and test together take {held_out}"
                ),
            );
        }
        if spec.min_age > spec.max_age {
            check.refuse(
                &field("min_age"),
                format!(
                    "must be at most {}, {}, got {}",
                    field("max_age"),
                    spec.max_age,
                    spec.min_age
                ),
            );
        }
        spec
    }

    pub(crate) fn options(&self, seed: u64, limits: Limits) -> Options {
        Options {
            age_pattern: self.age_pattern.clone(),
            columns: self.columns.clone(),
            ages: AgeRange {
                min: self.min_age as f32,
                max: self.max_age as f32,
            },
            split: SplitFractions {
                val: self.validation_fraction,
                test: self.test_fraction,
            },
            seed,
            grouping: self.split_grouping,
            max_reject_share: self.max_reject_share,
            limits,
            ..Options::default()
        }
    }

    /// Returns the message with every field set; reading it again gives an equal value.
    pub(crate) fn to_message(&self) -> v1::DatasetSpec {
        let pattern = self.age_pattern.as_ref();
        v1::DatasetSpec {
            name: self.name.clone(),
            path: self.path.clone(),
            validation_fraction: Some(self.validation_fraction),
            test_fraction: Some(self.test_fraction),
            min_age: Some(self.min_age),
            max_age: Some(self.max_age),
            max_reject_share: Some(self.max_reject_share),
            split_grouping: match self.split_grouping {
                SplitGrouping::Exact => v1::SplitGrouping::Exact,
                SplitGrouping::Near => v1::SplitGrouping::Near,
            }
            .into(),
            age_pattern: pattern.map_or_else(String::new, |pattern| pattern.text().to_owned()),
            columns: manifest_columns(&self.columns),
        }
    }
}
