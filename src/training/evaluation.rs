//! How well predictions fit the true ages, and the intervals that follow from the residuals.

use std::collections::BTreeMap;

use crate::proto::v1;

/// One image's true age and what the model says, both in years.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scored {
    /// The true age.
    pub age: f64,
    /// The predicted age.
    pub predicted: f64,
}

impl Scored {
    fn error(self) -> f64 {
        self.predicted - self.age
    }
}

/// Mean squared error in squared years, and mean absolute error in years, over all images alike.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Sums {
    images: u64,
    squared: f64,
    absolute: f64,
}

impl Sums {
    /// Adds one image.
    pub fn add(&mut self, scored: Scored) {
        self.images += 1;
        self.squared += scored.error().powi(2);
        self.absolute += scored.error().abs();
    }

    /// Number of images.
    pub fn images(&self) -> u64 {
        self.images
    }

    /// Mean squared error in squared years; NaN without an image.
    pub fn mse(&self) -> f64 {
        self.squared / self.images as f64
    }

    /// Mean absolute error in years; NaN without an image.
    pub fn mae(&self) -> f64 {
        self.absolute / self.images as f64
    }
}

impl FromIterator<Scored> for Sums {
    fn from_iter<I: IntoIterator<Item = Scored>>(scored: I) -> Self {
        let mut sums = Sums::default();
        for one in scored {
            sums.add(one);
        }
        sums
    }
}

/// Evaluates a model on a set of images.
///
/// `labels` holds each image's labels as (name, value), in the order of `scored`; `mean_age` is the training images' mean age in years. The cumulative
/// score counts errors of at most 5 years, with a millionth of a year of tolerance for rounding.
pub fn evaluate(scored: &[Scored], labels: &[Vec<(&str, &str)>], mean_age: f64) -> v1::Evaluation {
    let sums: Sums = scored.iter().copied().collect();
    let count = scored.len().max(1) as f64;
    let mean = scored.iter().map(|one| one.age).sum::<f64>() / count;
    let variance = scored
        .iter()
        .map(|one| (one.age - mean).powi(2))
        .sum::<f64>()
        / count;
    let within_five = scored
        .iter()
        .filter(|one| one.error().abs() <= 5.0 + 1e-6)
        .count();
    let always_mean: Sums = scored
        .iter()
        .map(|one| Scored {
            age: one.age,
            predicted: mean_age,
        })
        .collect();
    v1::Evaluation {
        images: sums.images(),
        mse: sums.mse(),
        rmse: sums.mse().sqrt(),
        mae: sums.mae(),
        r2: (variance > 0.0).then(|| 1.0 - sums.mse() / variance),
        cs5: within_five as f64 / count,
        bias: scored.iter().map(|one| one.error()).sum::<f64>() / count,
        groups: groups(scored, labels),
        baseline_mae: always_mean.mae(),
    }
}

/// Bands of ten years, then each value of each label column.
fn groups(scored: &[Scored], labels: &[Vec<(&str, &str)>]) -> Vec<v1::EvaluationGroup> {
    let mut bands: BTreeMap<u64, Vec<Scored>> = BTreeMap::new();
    for one in scored {
        bands
            .entry((one.age.max(0.0) / 10.0) as u64)
            .or_default()
            .push(*one);
    }
    let mut groups: Vec<_> = bands
        .iter()
        .map(|(band, members)| group("age", &format!("{}-{}", band * 10, band * 10 + 9), members))
        .collect();
    let mut by_label: BTreeMap<(&str, &str), Vec<Scored>> = BTreeMap::new();
    for (one, labels) in scored.iter().zip(labels) {
        for (key, value) in labels {
            by_label.entry((*key, *value)).or_default().push(*one);
        }
    }
    // A column with a value for nearly every image is an identifier, not a group.
    const MAX_GROUPS: usize = 100;
    let mut values: BTreeMap<&str, usize> = BTreeMap::new();
    for (key, _) in by_label.keys() {
        *values.entry(*key).or_default() += 1;
    }
    groups.extend(
        by_label
            .iter()
            .filter(|((key, _), _)| values.get(key).is_some_and(|count| *count <= MAX_GROUPS))
            .map(|((key, value), members)| group(key, value, members)),
    );
    groups
}

fn group(key: &str, value: &str, members: &[Scored]) -> v1::EvaluationGroup {
    let sums: Sums = members.iter().copied().collect();
    v1::EvaluationGroup {
        key: key.to_owned(),
        value: value.to_owned(),
        images: sums.images(),
        mae: sums.mae(),
        bias: members.iter().map(|one| one.error()).sum::<f64>() / members.len() as f64,
    }
}

/// The half width in years of the interval that holds a share `confidence` of true ages, from validation residuals.
///
/// Split-conformal regression (Lei et al., 2018, "Distribution-Free Predictive Inference for Regression", algorithm 2): the k-th smallest absolute
/// residual with k = ceil((n + 1) · confidence). `None` when there are too few residuals for that, or one is not finite.
pub fn conformal_half_width(scored: &[Scored], confidence: f64) -> Option<f64> {
    let mut residuals: Vec<f64> = scored.iter().map(|one| one.error().abs()).collect();
    if residuals.iter().any(|residual| !residual.is_finite()) {
        return None;
    }
    residuals.sort_by(f64::total_cmp);
    let rank = ((residuals.len() + 1) as f64 * confidence).ceil() as usize;
    residuals.get(rank.checked_sub(1)?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scored(pairs: &[(f64, f64)]) -> Vec<Scored> {
        let one = |&(age, predicted): &(f64, f64)| Scored { age, predicted };
        pairs.iter().map(one).collect()
    }

    #[test]
    fn figures_match_a_hand_calculation() {
        // Errors 2, -6, 5 and -1: squares 4, 36, 25, 1; ages 20, 40, 25, 35 have mean 30 and variance 62.5.
        let images = scored(&[(20.0, 22.0), (40.0, 34.0), (25.0, 30.0), (35.0, 34.0)]);
        let found = evaluate(&images, &vec![Vec::new(); 4], 30.0);
        assert_eq!(found.images, 4);
        assert!((found.mse - 16.5).abs() < 1e-12);
        assert!((found.rmse - 4.062_019_202_317_98).abs() < 1e-12);
        assert!((found.mae - 3.5).abs() < 1e-12);
        assert!((found.r2.unwrap() - (1.0 - 16.5 / 62.5)).abs() < 1e-12);
        assert!((found.cs5 - 0.75).abs() < 1e-12);
        assert!((found.bias - 0.0).abs() < 1e-12);
        assert!((found.baseline_mae - 7.5).abs() < 1e-12);
    }

    #[test]
    fn groups_are_bands_of_ten_years_and_label_values() {
        let images = scored(&[(9.0, 10.0), (10.0, 12.0), (19.0, 15.0)]);
        let (female, male) = (vec![("gender", "1")], vec![("gender", "0")]);
        let found = evaluate(&images, &[female, male.clone(), male], 12.0).groups;
        let lines: Vec<_> = found
            .iter()
            .map(|group| {
                (
                    group.key.as_str(),
                    group.value.as_str(),
                    group.images,
                    group.mae,
                    group.bias,
                )
            })
            .collect();
        assert_eq!(
            lines,
            [
                ("age", "0-9", 1, 1.0, 1.0),
                ("age", "10-19", 2, 3.0, -1.0),
                ("gender", "0", 2, 3.0, -1.0),
                ("gender", "1", 1, 1.0, 1.0),
            ]
        );
    }

    #[test]
    fn equal_ages_have_no_r2() {
        let images = scored(&[(30.0, 31.0), (30.0, 29.0)]);
        assert_eq!(evaluate(&images, &vec![Vec::new(); 2], 30.0).r2, None);
    }

    #[test]
    fn conformal_rank_is_the_ceiling_of_n_plus_one_times_confidence() {
        // Nine residuals 1 to 9: ceil(10 · 0.9) = 9, the largest. Eight: ceil(9 · 0.9) = 9 > 8, so no finite interval.
        let nine: Vec<_> = (1..=9)
            .map(|n| Scored {
                age: 0.0,
                predicted: f64::from(n),
            })
            .collect();
        assert_eq!(conformal_half_width(&nine, 0.9), Some(9.0));
        assert_eq!(conformal_half_width(&nine[..8], 0.9), None);
        // Nineteen residuals: ceil(20 · 0.9) = 18.
        let nineteen: Vec<_> = (1..=19)
            .map(|n| Scored {
                age: f64::from(n),
                predicted: 0.0,
            })
            .collect();
        assert_eq!(conformal_half_width(&nineteen, 0.9), Some(18.0));
    }
}
