//! Metrics of groups of images.

use std::collections::BTreeMap;

use super::{ErrorSums, Image, Scored, mean};
use crate::proto::v1;

/// Minimum size of a group that can be the worst; the error of fewer images is mostly chance.
pub(crate) const LEAST_OF_WORST_GROUP: u64 = 10;

/// The large enough group with the highest mean absolute error; the first of equals.
pub(super) fn worst_group(groups: &[v1::EvaluationGroup]) -> Option<v1::EvaluationGroup> {
    let large = groups
        .iter()
        .filter(|group| group.images >= LEAST_OF_WORST_GROUP);
    let worse = |worst: &v1::EvaluationGroup, other: &v1::EvaluationGroup| other.mae > worst.mae;
    large
        .reduce(|worst, other| if worse(worst, other) { other } else { worst })
        .cloned()
}

/// Metrics by bands of ten years of true age, then by each value of each label that two or more
/// images have: the error of one image says nothing about a group.
///
/// Also returns the labels without such a value.
pub(super) fn groups<'a>(images: &[Image<'a>]) -> (Vec<v1::EvaluationGroup>, Vec<&'a str>) {
    let mut bands: BTreeMap<u64, Vec<Scored>> = BTreeMap::new();
    for image in images {
        bands
            .entry((image.scored.age.max(0.0) / 10.0) as u64)
            .or_default()
            .push(image.scored);
    }
    let mut groups: Vec<_> = bands
        .iter()
        .map(|(band, members)| group("age", &format!("{}-{}", band * 10, band * 10 + 9), members))
        .collect();
    let mut by_label: BTreeMap<&str, BTreeMap<&str, Vec<Scored>>> = BTreeMap::new();
    for image in images {
        for (key, value) in &image.labels {
            let values = by_label.entry(*key).or_default();
            values.entry(*value).or_default().push(image.scored);
        }
    }
    let mut single = Vec::new();
    for (key, values) in &by_label {
        let before = groups.len();
        let shared = values.iter().filter(|(_, members)| members.len() > 1);
        groups.extend(shared.map(|(value, members)| group(key, value, members)));
        if groups.len() == before {
            single.push(*key);
        }
    }
    (groups, single)
}

/// Adds the labels whose values have one image each to the columns without groups.
pub(super) fn with_single_valued(
    left_out: Option<v1::LeftOutColumns>,
    single: Vec<&str>,
) -> Option<v1::LeftOutColumns> {
    if single.is_empty() {
        return left_out;
    }
    let mut all = left_out.unwrap_or_default();
    all.count += single.len() as u64;
    // The columns of a dataset are limited, and so are its labels.
    all.listed
        .extend(single.into_iter().map(|name| v1::LeftOutColumn {
            name: name.to_owned(),
            reason: "single_images".to_owned(),
            description: "each of its values has one of these images".to_owned(),
        }));
    Some(all)
}

fn group(key: &str, value: &str, members: &[Scored]) -> v1::EvaluationGroup {
    let sums: ErrorSums = members.iter().copied().collect();
    v1::EvaluationGroup {
        key: key.to_owned(),
        value: value.to_owned(),
        images: sums.images(),
        mae: sums.mae(),
        rmse: sums.mse().sqrt(),
        bias: mean(members.iter().map(|one| one.error())),
    }
}
