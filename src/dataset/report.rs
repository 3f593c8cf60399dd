//! What was found in a data set: counts, ages, rejects and duplicates, for people and as JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{LeftOutColumns, Sample, Split};

/// How many examples are named for each reason and each kind of duplicates.
const EXAMPLES: usize = 5;

/// The account of one reading of a data set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Where the ages came from.
    pub source: Source,
    /// Where the split came from.
    pub split: SplitOrigin,
    /// Images and rows looked at: the accepted and the rejected.
    pub considered: u64,
    /// Images in the three parts.
    pub accepted: u64,
    /// Images and rows that cannot be used.
    pub rejected: u64,
    /// Files in the directory that are no images. Not part of `considered`.
    pub ignored: u64,
    /// The rejected by reason; reasons that did not occur are left out.
    pub rejects: Vec<RejectCount>,
    /// The training part.
    pub train: SplitReport,
    /// The validation part.
    pub val: SplitReport,
    /// The test part.
    pub test: SplitReport,
    /// Images by decade of age, from the youngest to the oldest decade that occurs, without gaps.
    pub ages: Vec<AgeBand>,
    /// Byte-identical images.
    pub duplicates: Duplicates,
    /// Columns of the manifest that define no groups and are not used as labels.
    #[serde(default)]
    pub left_out_columns: LeftOutColumns,
    /// What a person should know before trusting a number from this data set, as sentences.
    pub warnings: Vec<String>,
    /// How long the listing and the scan took, in seconds.
    pub seconds: f64,
}

/// Where the ages came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The names of the files.
    Directory,
    /// A CSV or TSV file.
    Manifest,
}

/// Where the split came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SplitOrigin {
    /// The sub-directories or the manifest's column.
    Given,
    /// The content of each image and the seed.
    Hashed,
}

/// Why an image or a row cannot be used. The labels are stable and serve as values of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RejectReason {
    /// The name does not begin with an age.
    NoAge,
    /// The age is outside the allowed range.
    AgeOutOfRange,
    /// The image lies beside the directories of the split.
    NoPart,
    /// The row has a wrong number of fields, no path, no numeric age or an unknown split.
    BadRow,
    /// The path occurred in an earlier row.
    DuplicateRow,
    /// The path or the link leads outside the allowed roots.
    OutsideRoot,
    /// There is no such file.
    Missing,
    /// The file cannot be opened or read.
    Unreadable,
    /// The file has no bytes.
    Empty,
    /// The file is larger than allowed.
    TooLarge,
    /// The content is no JPEG, PNG, WebP or BMP.
    UnsupportedFormat,
    /// The image has more pixels than allowed.
    Dimensions,
    /// The content is damaged or cut off.
    Corrupt,
}

impl RejectReason {
    /// The stable label, for example `age_out_of_range`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::NoAge => "no_age",
            Self::AgeOutOfRange => "age_out_of_range",
            Self::NoPart => "no_part",
            Self::BadRow => "bad_row",
            Self::DuplicateRow => "duplicate_row",
            Self::OutsideRoot => "outside_root",
            Self::Missing => "missing",
            Self::Unreadable => "unreadable",
            Self::Empty => "empty",
            Self::TooLarge => "too_large",
            Self::UnsupportedFormat => "unsupported_format",
            Self::Dimensions => "dimensions",
            Self::Corrupt => "corrupt",
        }
    }
}

/// How often one reason occurred.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectCount {
    /// The reason.
    pub reason: RejectReason,
    /// How many images or rows.
    pub count: u64,
    /// The first names, at most five; for a bad row the line and what is wrong with it.
    pub examples: Vec<String>,
}

/// One part of the data set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SplitReport {
    /// Images in the part.
    pub images: u64,
    /// Encoded bytes of all of them.
    pub bytes: u64,
    /// The ages, or none for an empty part.
    pub age: Option<AgeSummary>,
}

/// Ages of one part, in years.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AgeSummary {
    /// Mean.
    pub mean: f64,
    /// Standard deviation of these images (divided by their number, not by one less).
    pub standard_deviation: f64,
    /// Youngest.
    pub min: f32,
    /// Oldest.
    pub max: f32,
}

/// Images of one decade of age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgeBand {
    /// First age of the decade in years; it ends before `from + 10`.
    pub from: i32,
    /// Images for training.
    pub train: u64,
    /// Images for validation.
    pub val: u64,
    /// Images for the test.
    pub test: u64,
}

/// Byte-identical images under different names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Duplicates {
    /// Groups of two or more identical images.
    pub groups: u64,
    /// Images in these groups.
    pub images: u64,
    /// Groups with members in different parts: what is validated or tested on was also learned from.
    pub straddling: u64,
    /// The first such groups, at most five, each image as `part: name`.
    pub straddling_examples: Vec<Vec<String>>,
    /// Groups whose members have different ages.
    pub conflicting_ages: u64,
    /// The first such groups, at most five, each image as `age: name`.
    pub conflicting_examples: Vec<Vec<String>>,
}

impl Duplicates {
    /// What is wrong with them, as sentences.
    pub(super) fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.straddling > 0 {
            warnings.push(format!(
                "{} groups of byte-identical images lie in different parts, so the validation or test error is a little too good; first: {}",
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

    /// One line: `3 no_age (a.jpg, b.jpg, c.jpg); 1 corrupt (34_d.jpg)`.
    pub(super) fn sentence(&self) -> String {
        let parts: Vec<String> = self
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
        parts.join("; ")
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

pub(super) fn part_report(samples: &[Sample]) -> SplitReport {
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

pub(super) fn age_bands(parts: &[(Split, &[Sample])]) -> Vec<AgeBand> {
    let decade = |sample: &Sample| (sample.age / 10.0).floor() as i32;
    let mut counts: BTreeMap<i32, [u64; 3]> = BTreeMap::new();
    for (split, samples) in parts {
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

/// Groups of two or more byte-identical images, each sorted by name, by the name of their first.
pub(super) fn identical<'a>(parts: &[(Split, &'a [Sample])]) -> Vec<Vec<(Split, &'a Sample)>> {
    let mut by_content: BTreeMap<[u8; 32], Vec<(Split, &Sample)>> = BTreeMap::new();
    for (split, samples) in parts {
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

pub(super) fn duplicates(parts: &[(Split, &[Sample])]) -> Duplicates {
    let mut found = Duplicates::default();
    for group in identical(parts) {
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
