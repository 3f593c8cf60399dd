//! Columns of a manifest that are not labels, for the report.

/// Most characters of the name and of each value of a label.
pub(super) const MAX_LENGTH: usize = 100;

/// Columns that a report names; further ones are only counted.
pub(super) const LISTED: usize = 50;

/// Columns that define no groups.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LeftOutColumns {
    pub count: u64,
    /// The first of them in the order of the manifest, at most 50.
    pub listed: Vec<LeftOutColumn>,
}

impl LeftOutColumns {
    pub(super) fn add(&mut self, name: &str, reason: LeftOutReason) {
        self.count += 1;
        if self.listed.len() < LISTED {
            self.listed.push(LeftOutColumn {
                name: name.chars().take(MAX_LENGTH).collect(),
                reason,
            });
        }
    }
}

/// A column that defines no groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LeftOutColumn {
    /// At most 100 characters.
    pub name: String,
    pub reason: LeftOutReason,
}

/// Reason why a column is not a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LeftOutReason {
    /// More than half of the rows have a unique value.
    UniqueValues,
    TooManyValues,
    /// The values are numbers that measure or count.
    Numbers,
    /// The values are lists of numbers, such as bounding boxes.
    NumberLists,
    /// The name or a value is longer than 100 characters.
    LongValues,
    /// pandas adds such a name to a column without one.
    Unnamed,
    /// An earlier column has the name, or it is the name of the age groups.
    NameTaken,
    /// Enough columns further left are labels.
    TooManyColumns,
}

impl LeftOutReason {
    /// Stable label in the API, for example `unique_values`.
    #[must_use]
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::UniqueValues => "unique_values",
            Self::TooManyValues => "too_many_values",
            Self::Numbers => "numbers",
            Self::NumberLists => "number_lists",
            Self::LongValues => "long_values",
            Self::Unnamed => "unnamed",
            Self::NameTaken => "name_taken",
            Self::TooManyColumns => "too_many_columns",
        }
    }

    /// Text of the reason, to follow the name of the column.
    #[must_use]
    pub(crate) fn description(self) -> &'static str {
        match self {
            Self::UniqueValues => "most rows have a value of their own",
            Self::TooManyValues => "it has more than 100 values",
            Self::Numbers => "its values are measurements or counters",
            Self::NumberLists => "its values are lists of numbers",
            Self::LongValues => "its name or a value is longer than 100 characters",
            Self::Unnamed => "it has no name",
            Self::NameTaken => "another column has its name",
            Self::TooManyColumns => "32 columns before it are labels",
        }
    }
}
