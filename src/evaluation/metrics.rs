//! The figures of an evaluation, over all images and by group.
//!
//! Formulas: mean absolute error and cumulative score, CS(N) = share of images with an error of at most N years, are the two usual figures of age estimation
//! (Chang, Chen and Hung, 2011, "Ordinal Hyperplanes Ranker with Cost Sensitivities for Age Estimation", section 5). R² is 1 - MSE / variance of the true ages.
//! The worst group is what a model promises to everybody (Sagawa, Koh, Hashimoto and Liang, 2020, "Distributionally Robust Neural Networks for Group
//! Shifts").

use std::collections::BTreeMap;

use crate::{model::calibration::Calibration, proto::v1};

use super::{ErrorSums, Scored};

/// Images that are named because the model is furthest off on them.
pub const WORST_PREDICTIONS: usize = 20;

/// Images that a group must have to be called the worst; the error over fewer is mostly chance.
pub const LEAST_OF_WORST_GROUP: u64 = 10;

/// An image that was predicted.
#[derive(Debug, Clone, PartialEq)]
pub struct Image<'a> {
    /// Its name relative to the dataset.
    pub name: &'a str,
    /// Its labels as (name, value).
    pub labels: Vec<(&'a str, &'a str)>,
    /// True and predicted age.
    pub scored: Scored,
}

/// The constant that a model has to beat.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Baseline {
    /// Age in years.
    pub age: f64,
    /// Where it is from.
    pub source: v1::BaselineSource,
}

impl Baseline {
    /// The mean age of the training images where it is known, else that of the evaluated images.
    pub fn new(mean_training_age: Option<f64>, images: &[Image<'_>]) -> Self {
        match mean_training_age {
            Some(age) => Baseline {
                age,
                source: v1::BaselineSource::TrainingMean,
            },
            None => Baseline {
                age: mean(images.iter().map(|image| image.scored.age)),
                source: v1::BaselineSource::DatasetMean,
            },
        }
    }
}

/// The interval that is checked against the true ages.
#[derive(Debug, Clone, Copy)]
pub struct Intervals<'a> {
    /// What makes it.
    pub calibration: &'a Calibration,
    /// One of its levels.
    pub level: f64,
}

impl<'a> Intervals<'a> {
    /// The intervals of a calibration at the smallest of its levels that is at least `wanted`; `None` when there is none.
    pub fn at(calibration: Option<&'a Calibration>, wanted: f64) -> Option<Self> {
        let calibration = calibration?;
        Some(Intervals {
            calibration,
            level: calibration.level_for(wanted)?,
        })
    }
}

/// Evaluates a model on a set of images, of which there must be at least one; without, most figures are not numbers.
/// `left_out` are columns of the dataset that are not labels.
pub fn evaluate(
    images: &[Image<'_>],
    baseline: Baseline,
    intervals: Option<Intervals<'_>>,
    left_out: Option<v1::LeftOutColumns>,
) -> v1::Evaluation {
    let sums: ErrorSums = images.iter().map(|image| image.scored).collect();
    let mean_age = mean(images.iter().map(|image| image.scored.age));
    let variance = mean(
        images
            .iter()
            .map(|image| (image.scored.age - mean_age).powi(2)),
    );
    let always_the_same: ErrorSums = images
        .iter()
        .map(|image| Scored {
            age: image.scored.age,
            predicted: baseline.age,
        })
        .collect();
    let (groups, single) = groups(images);
    v1::Evaluation {
        left_out_columns: with_single(left_out, single),
        images: sums.images(),
        mse: sums.mse(),
        rmse: sums.mse().sqrt(),
        mae: sums.mae(),
        r2: (variance > 0.0).then(|| 1.0 - sums.mse() / variance),
        cs3: cumulative_score(images, 3.0),
        cs5: cumulative_score(images, 5.0),
        cs10: cumulative_score(images, 10.0),
        bias: mean(images.iter().map(|image| image.scored.error())),
        worst_group: worst_group(&groups).map(Box::new),
        groups,
        baseline_mae: always_the_same.mae(),
        baseline_age: baseline.age,
        baseline_source: baseline.source.into(),
        worst_predictions: worst_predictions(images),
        interval_coverage: intervals.map(|intervals| coverage(images, intervals)),
    }
}

/// An image as the API tells it.
pub fn predicted_image(image: &Image<'_>) -> v1::PredictedImage {
    v1::PredictedImage {
        file: image.name.to_owned(),
        age: image.scored.age,
        predicted: image.scored.predicted,
        error: image.scored.error(),
    }
}

/// Share of images with an error of at most `years`, with a millionth of a year of tolerance for rounding.
fn cumulative_score(images: &[Image<'_>], years: f64) -> f64 {
    let within = |image: &&Image<'_>| image.scored.error().abs() <= years + 1e-6;
    images.iter().filter(within).count() as f64 / images.len() as f64
}

/// The images with the largest errors, the largest first; of equal ones the earlier name first.
fn worst_predictions(images: &[Image<'_>]) -> Vec<v1::PredictedImage> {
    let mut worst: Vec<&Image<'_>> = images.iter().collect();
    worst.sort_by(|one, other| {
        let (error, other_error) = (one.scored.error().abs(), other.scored.error().abs());
        other_error
            .total_cmp(&error)
            .then_with(|| one.name.cmp(other.name))
    });
    worst
        .into_iter()
        .take(WORST_PREDICTIONS)
        .map(predicted_image)
        .collect()
}

/// How often the intervals hold the true age, and how wide they are; ends are inside.
fn coverage(images: &[Image<'_>], intervals: Intervals<'_>) -> v1::IntervalCoverage {
    let Intervals { calibration, level } = intervals;
    let mut inside = 0_u64;
    let mut width = 0.0;
    for image in images {
        let Scored { age, predicted } = image.scored;
        if let Some((lower, upper)) = calibration.interval(level, predicted) {
            inside += u64::from((lower..=upper).contains(&age));
            width += upper - lower;
        }
    }
    v1::IntervalCoverage {
        level,
        coverage: inside as f64 / images.len() as f64,
        mean_width: width / images.len() as f64,
    }
}

/// The group with the highest mean absolute error among those that are large enough; of equal ones the first.
fn worst_group(groups: &[v1::EvaluationGroup]) -> Option<v1::EvaluationGroup> {
    let large = groups
        .iter()
        .filter(|group| group.images >= LEAST_OF_WORST_GROUP);
    let worse = |worst: &v1::EvaluationGroup, other: &v1::EvaluationGroup| other.mae > worst.mae;
    large
        .reduce(|worst, other| if worse(worst, other) { other } else { worst })
        .cloned()
}

/// Bands of ten years of true age, then each value of each label that two or more images have. The
/// error of one image says nothing about a group.
///
/// Also returns the labels without a remaining value.
fn groups<'a>(images: &[Image<'a>]) -> (Vec<v1::EvaluationGroup>, Vec<&'a str>) {
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

/// The columns that are left out, with the labels whose values have one image each.
fn with_single(
    left_out: Option<v1::LeftOutColumns>,
    single: Vec<&str>,
) -> Option<v1::LeftOutColumns> {
    if single.is_empty() {
        return left_out;
    }
    let mut all = left_out.unwrap_or_default();
    all.count += single.len() as u64;
    // There are at most as many labels as the columns of a dataset may be.
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

/// The mean; NaN of nothing.
fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len() as f64;
    values.sum::<f64>() / count
}

#[cfg(test)]
mod tests {
    use crate::model::calibration::HalfWidth;

    use super::*;

    fn images(pairs: &[(f64, f64)]) -> Vec<Image<'static>> {
        let one = |&(age, predicted): &(f64, f64)| Image {
            name: "a.jpg",
            labels: Vec::new(),
            scored: Scored { age, predicted },
        };
        pairs.iter().map(one).collect()
    }

    fn mean_of_training(age: f64) -> Baseline {
        Baseline::new(Some(age), &[])
    }

    #[test]
    fn evaluation_figures_match_a_hand_calculation() {
        // Errors 2, -6, 5 and -1: squares 4, 36, 25, 1; ages 20, 40, 25, 35 have mean 30 and variance 62.5.
        let images = images(&[(20.0, 22.0), (40.0, 34.0), (25.0, 30.0), (35.0, 34.0)]);
        let found = evaluate(&images, mean_of_training(31.0), None, None);
        assert_eq!(found.images, 4);
        assert!((found.mse - 16.5).abs() < 1e-12);
        assert!((found.rmse - 4.062_019_202_317_98).abs() < 1e-12);
        assert!((found.mae - 3.5).abs() < 1e-12);
        assert!((found.r2.unwrap() - (1.0 - 16.5 / 62.5)).abs() < 1e-12);
        assert_eq!((found.cs3, found.cs5, found.cs10), (0.5, 0.75, 1.0));
        assert!((found.bias - 0.0).abs() < 1e-12);
        // From 31: 11, 9, 6 and 4 years.
        assert!((found.baseline_mae - 7.5).abs() < 1e-12);
        assert_eq!(found.baseline_age, 31.0);
        let source = v1::BaselineSource::TrainingMean;
        assert_eq!(found.baseline_source(), source);
        assert_eq!(found.interval_coverage, None);
    }

    #[test]
    fn the_evaluated_images_give_the_baseline_where_the_training_does_not() {
        let images = images(&[(20.0, 22.0), (40.0, 34.0), (30.0, 30.0)]);
        let found = evaluate(&images, Baseline::new(None, &images), None, None);
        assert_eq!(found.baseline_age, 30.0);
        assert!((found.baseline_mae - 20.0 / 3.0).abs() < 1e-12);
        let source = v1::BaselineSource::DatasetMean;
        assert_eq!(found.baseline_source(), source);
    }

    #[test]
    fn evaluation_groups_are_bands_of_ten_years_and_label_values_of_several_images() {
        let mut images = images(&[(9.0, 10.0), (10.0, 12.0), (19.0, 15.0), (9.0, 10.0)]);
        images[0].labels = vec![("camera", "a"), ("gender", "1"), ("name", "anna")];
        images[1].labels = vec![("camera", "a"), ("gender", "0"), ("name", "bert")];
        images[2].labels = vec![("camera", "b"), ("gender", "0")];
        images[3].labels = vec![("gender", "1")];
        let others = v1::LeftOutColumns {
            count: 60,
            listed: vec![v1::LeftOutColumn::default(); 50],
        };
        let found = evaluate(&images, mean_of_training(12.0), None, Some(others));
        let expected = [
            ("age", "0-9", 2, 1.0, 1.0, 1.0),
            ("age", "10-19", 2, 3.0, 10.0_f64.sqrt(), -1.0),
            ("camera", "a", 2, 1.5, 2.5_f64.sqrt(), 1.5),
            ("gender", "0", 2, 3.0, 10.0_f64.sqrt(), -1.0),
            ("gender", "1", 2, 1.0, 1.0, 1.0),
        ];
        let expected = expected.map(
            |(key, value, images, mae, rmse, bias)| v1::EvaluationGroup {
                key: key.to_owned(),
                value: value.to_owned(),
                images,
                mae,
                bias,
                rmse,
            },
        );
        assert_eq!(found.groups, expected);
        let left_out = found.left_out_columns.unwrap();
        assert_eq!((left_out.count, left_out.listed.len()), (61, 51));
        let last = left_out.listed.last().unwrap();
        assert_eq!(
            (last.name.as_str(), last.reason.as_str()),
            ("name", "single_images")
        );
    }

    #[test]
    fn the_worst_group_of_an_evaluation_has_at_least_ten_images() {
        // Ten of 20 with an error of 2, ten of 30 with one of 3, nine of 40 with one of 9.
        let mut pairs = vec![(20.0, 22.0); 10];
        pairs.extend([(30.0, 27.0); 10]);
        pairs.extend([(40.0, 49.0); 9]);
        let found = evaluate(&images(&pairs), mean_of_training(30.0), None, None);
        let worst = found.worst_group.unwrap();
        assert_eq!((worst.key.as_str(), worst.value.as_str()), ("age", "30-39"));
        assert_eq!((worst.images, worst.mae, worst.bias), (10, 3.0, -3.0));
        let few = evaluate(&images(&pairs[..9]), mean_of_training(30.0), None, None);
        assert_eq!(few.worst_group, None);
    }

    #[test]
    fn the_worst_predictions_of_an_evaluation_are_the_largest_errors_by_size_and_name() {
        let names: Vec<String> = (0..30).map(|number| format!("{number:02}.jpg")).collect();
        let images: Vec<Image<'_>> = names
            .iter()
            .zip(0..)
            .map(|(name, number)| Image {
                name,
                labels: Vec::new(),
                // Errors 0, -1, -2, 0, -1, -2, …: ten of each.
                scored: Scored {
                    age: 40.0,
                    predicted: 40.0 - f64::from(number % 3),
                },
            })
            .collect();
        let found = evaluate(&images, mean_of_training(30.0), None, None).worst_predictions;
        assert_eq!(found.len(), WORST_PREDICTIONS);
        let named: Vec<&str> = found.iter().map(|one| one.file.as_str()).collect();
        assert_eq!(named[..3], ["02.jpg", "05.jpg", "08.jpg"]);
        assert_eq!(named[10..12], ["01.jpg", "04.jpg"]);
        let first = &found[0];
        assert_eq!(
            (first.age, first.predicted, first.error),
            (40.0, 38.0, -2.0)
        );
    }

    #[test]
    fn the_coverage_of_an_evaluation_matches_a_hand_calculation() {
        let width = |level, half_width| HalfWidth { level, half_width };
        let calibration = Calibration {
            confidence: 0.9,
            half_width: 6.0,
            images: 9,
            levels: vec![width(0.8, 4.0), width(0.9, 6.0)],
            bands: Vec::new(),
        };
        // Errors 2, -6, 6.5 and -1; the last interval begins at 0, not at -4 (0.9) or -2 (0.8), and is 8 or 6 wide.
        let images = images(&[(20.0, 22.0), (40.0, 34.0), (25.0, 31.5), (3.0, 2.0)]);
        let coverage = |wanted: f64| {
            let intervals = Intervals::at(Some(&calibration), wanted);
            let found = evaluate(&images, mean_of_training(30.0), intervals, None);
            let coverage = found.interval_coverage.unwrap();
            (coverage.level, coverage.coverage, coverage.mean_width)
        };
        assert_eq!(coverage(0.9), (0.9, 0.75, 11.0));
        assert_eq!(coverage(0.7), (0.8, 0.5, 7.5));
        assert!(Intervals::at(Some(&calibration), 0.95).is_none());
    }

    #[test]
    fn equal_ages_have_no_r2() {
        let images = images(&[(30.0, 31.0), (30.0, 29.0)]);
        assert_eq!(
            evaluate(&images, mean_of_training(30.0), None, None).r2,
            None
        );
    }
}
