//! Ranges of ages in file names.

use std::collections::{BTreeMap, BTreeSet};

use regex::Captures;

/// Fewest pairs for a conclusion from their differences alone.
const FEWEST: usize = 10;

/// Oldest age that a range may name, in years.
const OLDEST: u32 = 120;

/// Pairs of numbers at the start of file names.
#[derive(Default)]
pub(super) struct Ranges {
    pub(super) all: usize,
    /// Pairs whose second number is larger and could be an age.
    pub(super) rising: usize,
    /// Second numbers of the rising pairs by their first numbers.
    ends: BTreeMap<u32, BTreeSet<u32>>,
    pub(super) example: String,
}

impl Ranges {
    pub(super) fn add(&mut self, found: &Captures<'_>, path: &str) {
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

    /// Returns true if some pair occurs twice and a first number has few second numbers, or if all
    /// pairs have the same difference.
    pub(super) fn recur(&self) -> bool {
        let pairs: usize = self.ends.values().map(BTreeSet::len).sum();
        let differences = self
            .ends
            .iter()
            .flat_map(|(from, ends)| ends.iter().map(move |to| to - from));
        let is_even = differences.collect::<BTreeSet<_>>().len() == 1 && self.rising >= FEWEST;
        is_even || (pairs < self.rising && pairs <= 3 * self.ends.len())
    }

    /// Returns true if every first number has one second number, no two ranges overlap, and they
    /// recur.
    pub(super) fn are_bins(&self) -> bool {
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

/// Returns both ends of a range of ages; `None` if the second is not larger or not an age.
pub(super) fn ends(found: &Captures<'_>) -> Option<(u32, u32)> {
    let (from, to) = (found["from"].parse().ok()?, found["to"].parse().ok()?);
    (from < to && to <= OLDEST).then_some((from, to))
}
