//! Doubts about ages that were read from the start of file names: ranges, running numbers, and names of other datasets.
//!
//! File names cannot prove what a number means, so nothing is rejected here. A doubt becomes a warning of the report, or
//! the explanation of a refusal; an `age_pattern` settles it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use regex::{Captures, Regex};

use super::age_pattern::{Convention, convention};
use super::names;

/// File names that are kept and compared. A convention shows within far fewer.
const MAX_NAMES: usize = 20_000;

/// Share of the file names that must follow a rule for it to hold, out of a hundred.
const MOST: usize = 90;

/// Fewest file names for a conclusion from their numbers alone.
const FEWEST: usize = 10;

/// From this many file names on, no number that occurs twice is implausible for ages: among 60 ages spread evenly over 100
/// years, two or more are equal in all but one of 10^10 cases. A drawn dataset may well have 40 different ones.
const FEWEST_DISTINCT: usize = 60;

/// Oldest age that a range or a directory may name, in years.
const OLDEST: u32 = 120;

/// A name relative to the dataset, with the age that was read by default.
type Read = (String, Option<f32>);

/// Finds another possible age in a name, and returns it with the one that was read; none without another.
type OtherAge<'a> = dyn Fn(&Read) -> Option<(f32, Option<f32>)> + 'a;

/// File names whose ages were read by default.
#[derive(Debug, Default)]
pub(super) struct DefaultReading {
    names: Vec<Read>,
}

impl DefaultReading {
    /// Keeps a name, relative to the dataset, and what was read from it.
    pub(super) fn add(&mut self, name: &str, age: Option<f32>) {
        if self.names.len() < MAX_NAMES {
            self.names.push((name.to_owned(), age));
        }
    }

    /// The first doubt, as a sentence that names the remedy.
    pub(super) fn doubt(&self) -> Option<String> {
        self.other_dataset()
            .or_else(|| self.range_in_name())
            .or_else(|| self.range_in_directory())
            .or_else(|| self.directory_per_age())
            .or_else(|| self.running_number())
            .or_else(|| self.one_age())
    }

    /// True if this number of names is the share that a rule needs.
    fn is_most(&self, count: usize) -> bool {
        count > 0 && count * 100 >= self.names.len() * MOST
    }

    /// Names of a known dataset whose age is elsewhere.
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

    /// How many names have another possible age, and of how many it is not the one that was read.
    fn count_other_ages(&self, ages: &OtherAge<'_>) -> (usize, usize) {
        let mut counts = (0, 0);
        for (other, read) in self.names.iter().filter_map(ages) {
            counts.0 += 1;
            counts.1 += usize::from(read != Some(other));
        }
        counts
    }

    /// True where more than half of the other ages are not those that were read.
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

    /// Ranges of ages in front of file names.
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
        // `34-2.jpg` may be the second image of age 34. Then some second numbers are smaller, or no pair occurs twice.
        let is_range = plain.rising * 100 >= plain.all * 95 && plain.recur();
        // `34_56_x.jpg` usually is an age and a person or a code; only bins that do not overlap and recur are ranges.
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

    /// Directories named after ranges, with numbers in them that are something else.
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

    /// A directory per age, with running numbers as file names.
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
        // Directories may also be persons or portions of a dataset whose names begin with the age.
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

    /// True where enough numbers were read and none occurs twice.
    fn are_distinct(&self) -> bool {
        let numbers = self.numbers();
        let distinct: BTreeSet<u64> = numbers.iter().copied().collect();
        let is_enough = numbers.len() >= FEWEST_DISTINCT && self.is_most(numbers.len());
        is_enough && distinct.len() == numbers.len()
    }

    /// True where the numbers in most directories count from 0 or 1.
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

    /// Numbers that count the images.
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

    /// One number in front of all file names.
    fn one_age(&self) -> Option<String> {
        let mut numbers = self.names.iter().map(|(_, age)| *age);
        let first = numbers.next()??;
        (self.names.len() >= FEWEST && numbers.all(|age| age == Some(first))).then(|| {
            format!(
                "all file names begin with the number {first}, so there is one age to learn; if the age is elsewhere in them, set age_pattern to where it is, such as _(?<age>\\d+)\\."
            )
        })
    }

    /// The whole numbers that were read.
    fn numbers(&self) -> Vec<u64> {
        let read = self.names.iter().filter(|(_, age)| age.is_some());
        read.filter_map(|(path, _)| leading_number(path)).collect()
    }

    /// True for names with the time stamp of UTKFace, or as CACD has them: their first number is the age.
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

/// Pairs of numbers in front of file names.
#[derive(Default)]
struct Ranges {
    all: usize,
    /// Pairs whose second number is larger and could be an age.
    rising: usize,
    /// The second numbers by the first, of these.
    ends: BTreeMap<u32, BTreeSet<u32>>,
    example: String,
}

impl Ranges {
    fn add(&mut self, found: &Captures<'_>, path: &str) {
        self.all += 1;
        let Some((from, to)) = ends(found) else {
            return;
        };
        self.rising += 1;
        self.ends.entry(from).or_default().insert(to);
        if self.example.is_empty() {
            path.clone_into(&mut self.example);
        }
    }

    /// True where some pair occurs twice, and few second numbers follow one first number; or where all pairs are as far
    /// apart.
    fn recur(&self) -> bool {
        let pairs: usize = self.ends.values().map(BTreeSet::len).sum();
        let differences = self
            .ends
            .iter()
            .flat_map(|(from, ends)| ends.iter().map(move |to| to - from));
        let is_even = differences.collect::<BTreeSet<_>>().len() == 1 && self.rising >= FEWEST;
        is_even || (pairs < self.rising && pairs <= 3 * self.ends.len())
    }

    /// True where every first number has one second number, no two ranges overlap, and they recur.
    fn are_bins(&self) -> bool {
        let bins: Option<Vec<(u32, u32)>> = self
            .ends
            .iter()
            .map(|(from, ends)| Some((*from, *ends.first().filter(|_| ends.len() == 1)?)))
            .collect();
        let Some(bins) = bins else {
            return false;
        };
        let are_apart = bins.windows(2).all(|pair| pair[0].1 <= pair[1].0);
        bins.len() > 1 && are_apart && self.rising >= 2 * bins.len()
    }
}

/// Both ends of a range of ages; `None` if the second is not larger or not an age.
fn ends(found: &Captures<'_>) -> Option<(u32, u32)> {
    let (from, to) = (found["from"].parse().ok()?, found["to"].parse().ok()?);
    (from < to && to <= OLDEST).then_some((from, to))
}

/// A dataset's name as people write it.
fn title(name: &str) -> &str {
    match name {
        "agedb" => "AgeDB",
        "morph" => "MORPH",
        "fgnet" => "FG-NET",
        "afad" => "AFAD",
        other => other,
    }
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn directory_name(path: &str) -> Option<&str> {
    path.rsplit('/').nth(1)
}

fn digits(path: &str) -> &str {
    let name = file_name(path);
    &name[..name.bytes().take_while(u8::is_ascii_digit).count()]
}

/// The whole number in front of a file name.
fn leading_number(path: &str) -> Option<u64> {
    digits(path).parse().ok()
}

/// True for a number that is longer than any age is written.
fn has_wide_number(path: &str) -> bool {
    digits(path).len() >= 4
}

/// True for a file name that is a number and an extension.
fn is_number(path: &str) -> bool {
    let rest = &file_name(path)[digits(path).len()..];
    !digits(path).is_empty() && rest.starts_with('.') && rest.matches('.').count() == 1
}

fn fixed(pattern: &str) -> Regex {
    Regex::new(pattern).expect("the expression is fixed and tested")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doubt(paths: impl IntoIterator<Item = String>) -> Option<String> {
        let mut reading = DefaultReading::default();
        for path in paths {
            reading.add(&path, names::age(file_name(&path)));
        }
        reading.doubt()
    }

    /// A number between 1 and `limit` without a pattern that a rule could find.
    fn scattered(index: u32, limit: u32) -> u32 {
        1 + (index.wrapping_mul(2_654_435_761) >> 8) % limit
    }

    #[test]
    fn names_of_other_datasets_are_named_with_their_pattern() {
        type Name = fn(u32) -> String;
        let cases: [(&str, Name); 7] = [
            ("\"agedb\"", |n| {
                format!(
                    "{n}_Person{}_{}_{}.jpg",
                    n % 9,
                    20 + n % 60,
                    ["m", "f"][n as usize % 2]
                )
            }),
            ("\"morph\"", |n| {
                format!("{n:06}_{}M{}.JPG", n % 3, 16 + n % 50)
            }),
            ("\"fgnet\"", |n| format!("{:03}A{n:02}.JPG", n % 40 + 1)),
            ("\"afad\"", |n| {
                format!("{}/11{}/{}-0.jpg", 15 + n % 40, 1 + n % 2, 100 + n)
            }),
            ("\"directory\"", |n| {
                format!(
                    "train/{:03}/{n}.png",
                    [1, 5, 23, 34, 57, 80][n as usize % 6]
                )
            }),
            ("\"directory\"", |n| format!("{}/face_{n}.png", 1 + n % 6)),
            ("gt_avg_train.csv", |n| {
                format!(
                    "train/{:06}.jpg{}",
                    n / 2,
                    ["", "_face.jpg"][n as usize % 2]
                )
            }),
        ];
        for (remedy, name) in cases {
            let found = doubt((0..40).map(name)).unwrap_or_default();
            assert!(found.contains(remedy), "{}: {found}", name(1));
        }
    }

    #[test]
    fn ranges_of_ages_are_doubted() {
        type Name = fn(u32, u32, u32) -> String;
        let names: [Name; 8] = [
            |from, to, n| format!("{from}-{to}_{n:04}.jpg"),
            |from, to, n| format!("({from}, {to})_{n}.jpg"),
            |from, to, n| format!("{from} - {to} {n}.jpg"),
            |from, to, n| format!("{from}–{to}_{n}.jpg"),
            |from, to, n| format!("{from}_to_{to}_{n}.jpg"),
            |from, to, n| format!("{from}_{to}_{n}.jpg"),
            |from, to, n| format!("{from}-{to}/{n}.jpg"),
            |from, to, n| format!("train/{from}_{to}/img{n}.jpg"),
        ];
        let bins = [
            (0, 2),
            (4, 6),
            (8, 12),
            (15, 20),
            (25, 32),
            (38, 43),
            (48, 53),
            (60, 100),
        ];
        for name in names {
            let paths = (0..40).map(|n| {
                let (from, to) = bins[n as usize % bins.len()];
                name(from, to, n)
            });
            let found = doubt(paths).unwrap_or_default();
            assert!(
                found.contains("a range is not an age"),
                "{}: {found}",
                name(25, 32, 1)
            );
        }
        let sliding = doubt((0..40).map(|n| format!("{}-{}.jpg", 10 + n, 15 + n)));
        assert!(
            sliding
                .unwrap_or_default()
                .contains("a range is not an age")
        );
        // Some among ages.
        let mixed = (0..40).map(|n| match n % 10 {
            0 => format!("25-30_{n}.jpg"),
            _ => format!("{}_{n}.jpg", scattered(n, 80)),
        });
        let found = doubt(mixed).unwrap();
        assert!(
            found.starts_with(
                "4 of 40 file names begin with a range of ages, such as \"25-30_0.jpg\""
            ),
            "{found}"
        );
    }

    #[test]
    fn running_numbers_are_doubted() {
        let cases: [fn(u32) -> String; 6] = [
            |n| format!("{n:06}.jpg"),
            |n| format!("{n}.jpg"),
            |n| format!("{}_anna.jpg", n + 1),
            |n| {
                format!(
                    "{}_{}.jpg",
                    n / 3,
                    ["left", "front", "right"][n as usize % 3]
                )
            },
            |n| format!("{}_x.jpg", n + 60),
            |n| format!("2017010{n}_party.jpg"),
        ];
        for name in cases {
            let found = doubt((0..60).map(name)).unwrap_or_default();
            assert!(
                found.contains("as running numbers and not as ages"),
                "{}: {found}",
                name(1)
            );
        }
    }

    #[test]
    fn one_number_in_front_of_all_names_is_doubted() {
        let found = doubt((0..10).map(|n| format!("3_{}.jpg", 20 + n * 3))).unwrap();
        assert!(found.contains("begin with the number 3"), "{found}");
    }

    #[test]
    fn names_that_begin_with_the_age_are_not_doubted() {
        let cases: [fn(u32) -> String; 14] = [
            |n| {
                format!(
                    "{}_{}_{}_2017010312{n:07}.jpg.chip.jpg",
                    scattered(n, 100),
                    n % 2,
                    n % 5
                )
            },
            |n| format!("{}_{}_2017010312{n:07}.jpg", scattered(n, 100), n % 2),
            // One image per age, in UTKFace's form.
            |n| format!("{n}_0_0_2017010312{n:07}.jpg"),
            |n| {
                format!(
                    "train/{}_{}_{}_2017010312{n:07}.jpg",
                    scattered(n, 100),
                    n % 2,
                    n % 5
                )
            },
            // Portions of a dataset, and one directory per person.
            |n| {
                format!(
                    "{}/{}_{}_0_2017010312{n:07}.jpg",
                    1 + n % 3,
                    scattered(n, 100),
                    n % 2
                )
            },
            |n| format!("{:03}/{}_x.jpg", n / 4, scattered(n, 80)),
            // A directory per age or per decade, and the age in the name as well.
            |n| format!("{0}/{0}_{n}.jpg", scattered(n, 80)),
            |n| {
                format!(
                    "{0}-{1}/{2}_{n}.jpg",
                    scattered(n, 80) / 10 * 10,
                    scattered(n, 80) / 10 * 10 + 9,
                    scattered(n, 80)
                )
            },
            |n| format!("{}-{n}.jpg", scattered(n, 80)),
            |n| format!("{}-{}.jpg", scattered(n, 5), 10 + n),
            |n| format!("{}_{n}.jpg", scattered(n, 80)),
            |n| format!("{}_{}_{}.jpg", 20 + n % 20, 101 + n % 30, n % 4),
            |n| format!("{}_Some_Name_{n:04}.jpg", 20 + n % 40),
            |n| format!("{}.5_x.jpg", scattered(n, 80)),
        ];
        for name in cases {
            for count in [1, 4, 12, 40, 200] {
                assert_eq!(doubt((0..count).map(name)), None, "{} {count}", name(1));
            }
        }
        assert_eq!(doubt([]), None);
    }
}
