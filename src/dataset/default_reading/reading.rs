//! Detection of file names whose first number is not the age.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use regex::Regex;

use super::{
    super::{
        age_pattern::{Convention, convention},
        names,
    },
    path::{directory_name, file_name, has_wide_number, is_number, leading_number},
    ranges::{Ranges, ends},
};

/// File names that are kept. A convention is visible in far fewer.
const MAX_NAMES: usize = 20_000;

/// Percentage of the file names that must follow a rule for it to hold.
const MOST: usize = 90;

/// Fewest file names for a conclusion from their numbers alone.
const FEWEST: usize = 10;

/// From this number of file names on, ages are unlikely to be all different: among 60 ages spread
/// evenly over 100 years, two or more are equal in all but one of 10^10 cases. 40 different ones
/// may well occur.
const FEWEST_DISTINCT: usize = 60;

/// Oldest age that a directory may name, in years.
const OLDEST: u32 = 120;

/// A name relative to the dataset, with the age that was read by default.
type Read = (String, Option<f32>);

/// Returns another possible age in a name, with the one that was read; `None` without another.
type OtherAge<'a> = dyn Fn(&Read) -> Option<(f32, Option<f32>)> + 'a;

/// File names whose ages were read by default.
#[derive(Debug, Default)]
pub(crate) struct DefaultReading {
    names: Vec<Read>,
}

impl DefaultReading {
    /// Keeps a name, relative to the dataset, and what was read from it.
    pub(crate) fn add(&mut self, name: &str, age: Option<f32>) {
        if self.names.len() < MAX_NAMES {
            self.names.push((name.to_owned(), age));
        }
    }

    /// Returns the first doubt, as a sentence that names the remedy.
    pub(crate) fn doubt(&self) -> Option<String> {
        self.other_dataset()
            .or_else(|| self.range_in_name())
            .or_else(|| self.range_in_directory())
            .or_else(|| self.directory_per_age())
            .or_else(|| self.running_number())
            .or_else(|| self.one_age())
    }

    /// Returns true if this number of names is the share that a rule needs.
    fn is_most(&self, count: usize) -> bool {
        count > 0 && count * 100 >= self.names.len() * MOST
    }

    /// Detects names of a known dataset whose age is elsewhere.
    fn other_dataset(&self) -> Option<String> {
        for known in ["agedb", "morph", "fgnet", "afad"] {
            let Convention {
                name,
                example,
                pattern,
            } = convention(known)?;
            let ages = |(path, age): &Read| Some((pattern.read(path).ok()?, *age));
            if self.is_most(self.count_other_ages(&ages).0) && self.differ(&ages) {
                return Some(format!(
                    "the file names look like those of {} ({example}), whose age does not come first; set age_pattern to {name:?}",
                    title(name)
                ));
            }
        }
        self.appa_real()
    }

    /// Counts the names with another possible age, and those where it differs from the one that was
    /// read.
    fn count_other_ages(&self, ages: &OtherAge<'_>) -> (usize, usize) {
        let mut counts = (0, 0);
        for (other, read) in self.names.iter().filter_map(ages) {
            counts.0 += 1;
            counts.1 += usize::from(read != Some(other));
        }
        counts
    }

    /// Returns true if more than half of the other ages differ from those that were read.
    fn differ(&self, ages: &OtherAge<'_>) -> bool {
        let (all, different) = self.count_other_ages(ages);
        different * 2 > all
    }

    fn appa_real(&self) -> Option<String> {
        static NAME: LazyLock<Regex> =
            LazyLock::new(|| fixed(r"^[0-9]{6}\.jpg(?<face>_face\.jpg)?$"));
        let found = self
            .names
            .iter()
            .filter_map(|(path, _)| NAME.captures(file_name(path)));
        let faces: Vec<bool> = found.map(|name| name.name("face").is_some()).collect();
        (self.is_most(faces.len()) && faces.contains(&true)).then(|| {
            "the file names look like those of APPA-REAL (000000.jpg_face.jpg), which hold a running number and no age; copy its gt_avg_train.csv to its images and train on that manifest with --column path=file_name,age=real_age".to_owned()
        })
    }

    /// Detects ranges of ages at the start of file names.
    fn range_in_name(&self) -> Option<String> {
        static RANGE: LazyLock<Regex> = LazyLock::new(|| {
            fixed(
                r"^[(\[]?\s*(?<from>[0-9]{1,3})(?<separator>\s*[-–—,]\s*|\s*_?to_?\s*|_)(?<to>[0-9]{1,3})\s*[)\]]?(?:[-_. ]|$)",
            )
        });
        let mut plain = Ranges::default();
        let mut underscored = Ranges::default();
        for (path, _) in &self.names {
            let Some(found) = RANGE.captures(file_name(path)) else {
                continue;
            };
            match &found["separator"] {
                "_" => underscored.add(&found, path),
                _ => plain.add(&found, path),
            }
        }
        // `34-2.jpg` may be the second image of age 34. Then some second numbers are smaller, or no
        // pair occurs twice.
        let is_range = plain.rising * 100 >= plain.all * 95 && plain.recur();
        // `34_56_x.jpg` usually is an age and a person or a code; only bins that do not overlap and
        // recur are ranges.
        let is_bins = self.is_most(underscored.rising) && underscored.are_bins();
        let ranges = match (is_range, is_bins) {
            (true, _) => plain,
            (false, true) => underscored,
            (false, false) => return None,
        };
        Some(format!(
            "{} of {} file names begin with a range of ages, such as {:?}, and a range is not an age; leave these images out or give their ages in a manifest, or, if the first number is the age, set age_pattern to \"utkface\"",
            ranges.rising,
            self.names.len(),
            ranges.example
        ))
    }

    /// Detects directories named after ranges, with other numbers in the file names.
    fn range_in_directory(&self) -> Option<String> {
        static RANGE: LazyLock<Regex> = LazyLock::new(|| {
            fixed(
                r"^[(\[]?\s*(?<from>[0-9]{1,3})(?:\s*[-–—,_]\s*|\s*_?to_?\s*)(?<to>[0-9]{1,3})\s*[)\]]?$",
            )
        });
        let (mut all, mut outside) = (0, 0);
        let mut example = "";
        for (path, age) in &self.names {
            let Some(directory) = directory_name(path) else {
                continue;
            };
            let Some((from, to)) = RANGE.captures(directory).and_then(|found| ends(&found)) else {
                continue;
            };
            all += 1;
            let is_inside = age.is_some_and(|age| (from as f32..=to as f32).contains(&age));
            if !is_inside {
                outside += 1;
                example = path;
            }
        }
        (self.is_most(all) && outside * 2 > all).then(|| {
            format!(
                "the directories are named after ranges of ages and the file names do not begin with an age in them, such as {example:?}; a range is not an age: give the ages in a manifest"
            )
        })
    }

    /// Detects a directory per age, with running numbers as file names.
    fn directory_per_age(&self) -> Option<String> {
        let Convention {
            name,
            example,
            pattern,
        } = convention("directory")?;
        let directory_age = |path: &str| {
            let age = pattern.read(path).ok()?;
            (age <= OLDEST as f32).then_some(age)
        };
        let ages = |(path, age): &Read| Some((directory_age(path)?, *age));
        if !self.is_most(self.count_other_ages(&ages).0) || !self.differ(&ages) {
            return None;
        }
        let directories: BTreeSet<u32> = self
            .names
            .iter()
            .filter_map(|(path, _)| Some(directory_age(path)? as u32))
            .collect();
        // Directories may also be persons or portions of a dataset whose file names start with the
        // age.
        let looks_like_index = self.is_most(
            self.names
                .iter()
                .filter(|(path, _)| is_number(path))
                .count(),
        ) || self
            .is_most(self.names.iter().filter(|(_, age)| age.is_none()).count())
            || self.are_distinct()
            || self.count_in_directories();
        (directories.len() > 1 && looks_like_index).then(|| {
            format!(
                "the directories look like ages and the file names like running numbers ({example}); set age_pattern to {name:?}, or, if the age comes first in the file names, to \"utkface\""
            )
        })
    }

    /// Returns true if enough numbers were read and each occurs once.
    fn are_distinct(&self) -> bool {
        let numbers = self.numbers();
        let distinct: BTreeSet<u64> = numbers.iter().copied().collect();
        let is_enough = numbers.len() >= FEWEST_DISTINCT && self.is_most(numbers.len());
        is_enough && distinct.len() == numbers.len()
    }

    /// Returns true if the numbers in most directories count from 0 or 1.
    fn count_in_directories(&self) -> bool {
        let mut directories: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
        for (path, _) in &self.names {
            if let Some(number) = leading_number(path) {
                let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
                directories.entry(directory).or_default().push(number);
            }
        }
        let counted = directories.values_mut().filter_map(|numbers| {
            numbers.sort_unstable();
            let first = *numbers.first()?;
            let follows = (first..)
                .zip(numbers.iter())
                .all(|(next, number)| next == *number);
            (numbers.len() >= 3).then_some(first <= 1 && follows)
        });
        let counted: Vec<bool> = counted.collect();
        let rising = counted.iter().filter(|rises| **rises).count();
        rising > 0 && rising * 100 >= counted.len() * MOST
    }

    /// Detects numbers that count the images.
    fn running_number(&self) -> Option<String> {
        if self.names.len() < FEWEST || self.is_named_by_age() {
            return None;
        }
        let wide = self.names.iter().find(|(path, _)| has_wide_number(path));
        let count_wide = self
            .names
            .iter()
            .filter(|(path, _)| has_wide_number(path))
            .count();
        let numbers = self.numbers();
        let mut counts: BTreeMap<u64, u64> = BTreeMap::new();
        for number in &numbers {
            *counts.entry(*number).or_default() += 1;
        }
        let (first, last) = (*counts.keys().next()?, *counts.keys().next_back()?);
        let is_dense = counts.len() >= FEWEST
            && first <= 1
            && last - first + 1 == counts.len() as u64
            && counts
                .values()
                .all(|count| Some(count) == counts.values().next());
        let why = match wide {
            Some((path, _)) if self.is_most(count_wide) => {
                format!("have four or more digits, such as {path:?}")
            }
            _ if self.is_most(numbers.len()) && is_dense => {
                format!("are all the numbers from {first} to {last}, equally often")
            }
            _ if self.are_distinct() => "are all different".to_owned(),
            _ => return None,
        };
        Some(format!(
            "the numbers in front of the file names {why}, as running numbers and not as ages; set age_pattern to where the age is, such as _(?<age>\\d+)\\., or give the ages in a manifest, or, if these numbers are the ages, set age_pattern to \"utkface\""
        ))
    }

    /// Detects one number at the start of all file names.
    fn one_age(&self) -> Option<String> {
        let mut numbers = self.names.iter().map(|(_, age)| *age);
        let first = numbers.next()??;
        (self.names.len() >= FEWEST && numbers.all(|age| age == Some(first))).then(|| {
            format!(
                "all file names begin with the number {first}, so there is one age to learn; if the age is elsewhere in them, set age_pattern to where it is, such as _(?<age>\\d+)\\."
            )
        })
    }

    /// Returns the whole numbers that were read.
    fn numbers(&self) -> Vec<u64> {
        let read = self.names.iter().filter(|(_, age)| age.is_some());
        read.filter_map(|(path, _)| leading_number(path)).collect()
    }

    /// Returns true for names with the time stamp of UTKFace, or of the form of CACD: their first
    /// number is the age.
    fn is_named_by_age(&self) -> bool {
        let is_utkface = |path: &str| !names::utkface_labels(file_name(path)).is_empty();
        let is_cacd =
            |path: &str| convention("cacd").is_some_and(|cacd| cacd.pattern.read(path).is_ok());
        let by_age = self
            .names
            .iter()
            .filter(|(path, _)| is_utkface(path) || is_cacd(path));
        self.is_most(by_age.count())
    }
}

/// Returns the usual spelling of a dataset's name.
fn title(name: &str) -> &str {
    match name {
        "agedb" => "AgeDB",
        "morph" => "MORPH",
        "fgnet" => "FG-NET",
        "afad" => "AFAD",
        other => other,
    }
}

fn fixed(pattern: &str) -> Regex {
    Regex::new(pattern).expect("the expression is fixed and tested")
}
