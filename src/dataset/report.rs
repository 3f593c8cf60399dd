//! Report on a dataset: counts, ages, rejects and duplicates.

use std::collections::BTreeMap;

use super::{LeftOutColumns, Sample, Split};

/// Examples for each reason and each kind of duplicates.
const EXAMPLES: usize = 5;

#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Report {
    pub source: Source,
    pub split: SplitOrigin,
    /// Accepted and rejected images and rows.
    pub considered: u64,
    pub accepted: u64,
    pub rejected: u64,
    /// Files in the directory that are not images. Not included in `considered`.
    pub ignored: u64,
    /// Only reasons that occurred.
    pub rejects: Vec<RejectCount>,
    pub train: SplitReport,
    pub val: SplitReport,
    pub test: SplitReport,
    /// Images by decade of age, from the youngest to the oldest decade that occurs, without gaps.
    pub ages: Vec<AgeBand>,
    pub duplicates: Duplicates,
    /// Columns of the manifest that define no groups and are not used as labels.
    pub left_out_columns: LeftOutColumns,
    /// Sentences for the owner of the dataset.
    pub warnings: Vec<String>,
    /// Duration of the listing and the scan.
    pub seconds: f64,
}

/// Origin of the ages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Source {
    /// File names.
    #[default]
    Directory,
    Manifest,
}

/// Origin of the splits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum SplitOrigin {
    /// Sub-directories or the manifest's column.
    #[default]
    Given,
    /// Content of each image and the seed.
    Hashed,
}

/// Reason why an image or a row cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum RejectReason {
    /// The name does not start with an age.
    NoAge,
    AgeOutOfRange,
    /// The image lies beside the directories of the splits.
    NoPart,
    /// The row has a wrong number of fields, no path, no numeric age or an unknown split.
    BadRow,
    /// The path occurred in an earlier row.
    DuplicateRow,
    /// The path or the link leads outside the allowed roots.
    OutsideRoot,
    Missing,
    /// The server's user may not read the file or the directory.
    PermissionDenied,
    Unreadable,
    Empty,
    TooLarge,
    /// The content is not a JPEG, PNG, WebP or BMP.
    UnsupportedFormat,
    Dimensions,
    Corrupt,
}

impl RejectReason {
    /// Stable label in the API, for example `age_out_of_range`.
    #[must_use]
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::NoAge => "no_age",
            Self::AgeOutOfRange => "age_out_of_range",
            Self::NoPart => "no_part",
            Self::BadRow => "bad_row",
            Self::DuplicateRow => "duplicate_row",
            Self::OutsideRoot => "outside_root",
            Self::Missing => "missing",
            Self::PermissionDenied => "permission_denied",
            Self::Unreadable => "unreadable",
            Self::Empty => "empty",
            Self::TooLarge => "too_large",
            Self::UnsupportedFormat => "unsupported_format",
            Self::Dimensions => "dimensions",
            Self::Corrupt => "corrupt",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RejectCount {
    pub reason: RejectReason,
    pub count: u64,
    /// The first names, at most five; for a bad row the line and the problem.
    pub examples: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct SplitReport {
    pub images: u64,
    /// Encoded bytes of all images.
    pub bytes: u64,
    /// `None` for an empty split.
    pub age: Option<AgeSummary>,
}

/// Ages of one split, in years.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct AgeSummary {
    pub mean: f64,
    /// Standard deviation of these images (divided by their number, not by one less).
    pub standard_deviation: f64,
    pub min: f32,
    pub max: f32,
}

/// Images of one decade of age.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AgeBand {
    /// First age of the decade in years; it ends before `from + 10`.
    pub from: i32,
    pub train: u64,
    pub val: u64,
    pub test: u64,
}

/// Byte-identical images under different names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Duplicates {
    /// Groups of two or more identical images.
    pub groups: u64,
    /// Images in these groups.
    pub images: u64,
    /// Groups with members in different splits: the model is validated or tested on training data.
    pub straddling: u64,
    /// The first such groups, at most five, each image as `split: name`.
    pub straddling_examples: Vec<Vec<String>>,
    /// Groups whose members have different ages.
    pub conflicting_ages: u64,
    /// The first such groups, at most five, each image as `age: name`.
    pub conflicting_examples: Vec<Vec<String>>,
}

impl Duplicates {
    pub(super) fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.straddling > 0 {
            warnings.push(format!(
                "{} groups of byte-identical images lie in different splits, so the validation or test error is slightly too low; first: {}",
                self.straddling,
                self.straddling_examples[0].join(", ")
            ));
        }
        if self.conflicting_ages > 0 {
            warnings.push(format!(
                "{} groups of byte-identical images have different ages; first: {}",
                self.conflicting_ages,
                self.conflicting_examples[0].join(", ")
            ));
        }
        warnings
    }
}

/// Counts rejects and keeps the first names of each reason.
#[derive(Debug, Default)]
pub(super) struct Rejects(BTreeMap<RejectReason, (u64, Vec<String>)>);

impl Rejects {
    pub(super) fn add(&mut self, reason: RejectReason, example: String) {
        let (count, examples) = self.0.entry(reason).or_default();
        *count += 1;
        if examples.len() < EXAMPLES {
            examples.push(example);
        }
    }

    pub(super) fn total(&self) -> u64 {
        self.0.values().map(|(count, _)| count).sum()
    }

    /// Returns one line: `3 no_age (a.jpg, b.jpg, c.jpg); 1 corrupt (34_d.jpg)`.
    pub(super) fn sentence(&self) -> String {
        let reasons: Vec<String> = self
            .0
            .iter()
            .map(|(reason, (count, examples))| {
                let more = if *count > examples.len() as u64 {
                    ", …"
                } else {
                    ""
                };
                format!("{count} {} ({}{more})", reason.label(), examples.join(", "))
            })
            .collect();
        reasons.join("; ")
    }

    pub(super) fn into_counts(self) -> Vec<RejectCount> {
        self.0
            .into_iter()
            .map(|(reason, (count, examples))| RejectCount {
                reason,
                count,
                examples,
            })
            .collect()
    }
}

pub(super) fn split_report(samples: &[Sample]) -> SplitReport {
    SplitReport {
        images: samples.len() as u64,
        bytes: samples.iter().map(|sample| sample.bytes).sum(),
        age: age_summary(samples),
    }
}

fn age_summary(samples: &[Sample]) -> Option<AgeSummary> {
    let ages = || samples.iter().map(|sample| sample.age);
    let count = samples.len() as f64;
    let min = ages().reduce(f32::min)?;
    let max = ages().reduce(f32::max)?;
    let mean = ages().map(f64::from).sum::<f64>() / count;
    let variance = ages()
        .map(|age| (f64::from(age) - mean).powi(2))
        .sum::<f64>()
        / count;
    Some(AgeSummary {
        mean,
        standard_deviation: variance.sqrt(),
        min,
        max,
    })
}

pub(super) fn age_bands(splits: &[(Split, &[Sample])]) -> Vec<AgeBand> {
    let decade = |sample: &Sample| (sample.age / 10.0).floor() as i32;
    let mut counts: BTreeMap<i32, [u64; 3]> = BTreeMap::new();
    for (split, samples) in splits {
        for sample in *samples {
            counts.entry(decade(sample)).or_default()[*split as usize] += 1;
        }
    }
    let (Some(first), Some(last)) = (counts.keys().next(), counts.keys().last()) else {
        return Vec::new();
    };
    (*first..=*last)
        .map(|decade| {
            let [train, val, test] = counts.get(&decade).copied().unwrap_or_default();
            AgeBand {
                from: decade * 10,
                train,
                val,
                test,
            }
        })
        .collect()
}

/// Returns the groups of two or more byte-identical images, each sorted by name, ordered by the
/// names of their first images.
pub(super) fn identical<'a>(splits: &[(Split, &'a [Sample])]) -> Vec<Vec<(Split, &'a Sample)>> {
    let mut by_content: BTreeMap<[u8; 32], Vec<(Split, &Sample)>> = BTreeMap::new();
    for (split, samples) in splits {
        for sample in *samples {
            by_content
                .entry(sample.content_hash)
                .or_default()
                .push((*split, sample));
        }
    }
    let mut groups: Vec<_> = by_content
        .into_values()
        .filter(|group| group.len() > 1)
        .collect();
    for group in &mut groups {
        group.sort_unstable_by(|(_, one), (_, other)| one.name.cmp(&other.name));
    }
    groups.sort_unstable_by(|one, other| one[0].1.name.cmp(&other[0].1.name));
    groups
}

pub(super) fn duplicates(splits: &[(Split, &[Sample])]) -> Duplicates {
    let mut found = Duplicates::default();
    for group in identical(splits) {
        found.groups += 1;
        found.images += group.len() as u64;
        let (first_part, first) = group[0];
        if group.iter().any(|(split, _)| *split != first_part) {
            found.straddling += 1;
            let members = group
                .iter()
                .map(|(split, sample)| format!("{}: {}", split.label(), sample.name));
            keep_example(&mut found.straddling_examples, members);
        }
        if group.iter().any(|(_, sample)| sample.age != first.age) {
            found.conflicting_ages += 1;
            let members = group
                .iter()
                .map(|(_, sample)| format!("{}: {}", sample.age, sample.name));
            keep_example(&mut found.conflicting_examples, members);
        }
    }
    found
}

fn keep_example(examples: &mut Vec<Vec<String>>, members: impl Iterator<Item = String>) {
    if examples.len() < EXAMPLES {
        examples.push(members.take(EXAMPLES).collect());
    }
}
