//! Metrics against hand calculations.

use super::{
    Image, Scored,
    metrics::{Baseline, Intervals, WORST_PREDICTIONS, evaluate},
};
use crate::{
    model::calibration::{Calibration, HalfWidth},
    proto::v1,
};

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
fn evaluation_metrics_match_a_hand_calculation() {
    // Errors 2, -6, 5 and -1: squares 4, 36, 25, 1; ages 20, 40, 25, 35 have mean 30 and variance
    // 62.5.
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
    // Errors 2, -6, 6.5 and -1; the last interval begins at 0, not at -4 (0.9) or -2 (0.8), and is
    // 8 or 6 wide.
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
