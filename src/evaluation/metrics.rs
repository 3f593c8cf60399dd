//! Metrics of an evaluation, over all images and by group.
//!
//! Mean absolute error and cumulative score, CS(N) = share of images with an error of at most N
//! years, are the usual metrics of age estimation (Chang, Chen and Hung, 2011, "Ordinal Hyperplanes
//! Ranker with Cost Sensitivities for Age Estimation", section 5). R² is 1 - MSE / variance of the
//! true ages. The worst group shows the guarantee for everybody (Sagawa, Koh, Hashimoto and Liang,
//! 2020, "Distributionally Robust Neural Networks for Group Shifts").

use super::{
    ErrorSums, Image, Scored,
    groups::{groups, with_single_valued, worst_group},
    mean,
};
use crate::{model::calibration::Calibration, proto::v1};

/// Number of images that are listed with the largest errors.
pub(crate) const WORST_PREDICTIONS: usize = 20;

/// The constant prediction that a model has to beat.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Baseline {
    /// In years.
    pub age: f64,
    pub source: v1::BaselineSource,
}

impl Baseline {
    /// The mean age of the training images if known, else that of the evaluated images.
    pub(crate) fn new(mean_training_age: Option<f64>, images: &[Image<'_>]) -> Self {
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

/// The prediction intervals that are checked against the true ages.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Intervals<'a> {
    pub calibration: &'a Calibration,
    /// A level of the calibration.
    pub level: f64,
}

impl<'a> Intervals<'a> {
    /// The intervals at the smallest level of at least `minimum`; `None` if the calibration has no
    /// such level.
    pub(crate) fn at(calibration: Option<&'a Calibration>, minimum: f64) -> Option<Self> {
        let calibration = calibration?;
        Some(Intervals {
            calibration,
            level: calibration.level_for(minimum)?,
        })
    }
}

/// Evaluates predictions of at least one image; without any, most metrics are NaN. `left_out` are
/// columns of the dataset that are not labels.
pub(crate) fn evaluate(
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
    let constant: ErrorSums = images
        .iter()
        .map(|image| Scored {
            age: image.scored.age,
            predicted: baseline.age,
        })
        .collect();
    let (groups, single_valued) = groups(images);
    v1::Evaluation {
        left_out_columns: with_single_valued(left_out, single_valued),
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
        baseline_mae: constant.mae(),
        trained_on_images: None,
        baseline_age: baseline.age,
        baseline_source: baseline.source.into(),
        worst_predictions: worst_predictions(images),
        interval_coverage: intervals.map(|intervals| coverage(images, intervals)),
    }
}

pub(crate) fn predicted_image(image: &Image<'_>) -> v1::PredictedImage {
    v1::PredictedImage {
        file: image.name.to_owned(),
        age: image.scored.age,
        predicted: image.scored.predicted,
        error: image.scored.error(),
    }
}

/// Share of images with an error of at most `years`, with a tolerance of a millionth of a year for
/// rounding.
fn cumulative_score(images: &[Image<'_>], years: f64) -> f64 {
    let within = |image: &&Image<'_>| image.scored.error().abs() <= years + 1e-6;
    images.iter().filter(within).count() as f64 / images.len() as f64
}

/// The images with the largest errors, largest first; among equals the earlier name first.
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

/// Coverage and mean width of the intervals; ends are inside.
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
