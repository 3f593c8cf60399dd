//! Prediction intervals from validation residuals, without assumptions about the distribution of
//! errors.
//!
//! Split-conformal regression (Lei, G'Sell, Rinaldo, Tibshirani and Wasserman, 2018,
//! "Distribution-Free Predictive Inference for Regression", algorithm 2): the half width at level L
//! is the k-th smallest of n absolute residuals, k = ceil((n + 1) L). On average over validation
//! sets, the interval contains a share of at least L of the true ages of similar images.
//!
//! Errors grow with age, so the residuals are also grouped by band of *predicted* age, which is
//! known when the interval is needed: Mondrian, or group-conditional, conformal prediction (Vovk,
//! 2012, "Conditional Validity of Inductive Conformal Predictors", section 3; Boström and
//! Johansson, 2020, "Mondrian Conformal Regressors"). The guarantee then holds in each band with
//! enough residuals.

use std::collections::BTreeMap;

use super::Scored;
use crate::model::calibration::{Band, Calibration, DEFAULT_LEVEL, HalfWidth, band_of};

/// The calibrated levels; they need at least 1, 4, 9, 19 and 99 residuals.
pub(crate) const LEVELS: [f64; 5] = [0.5, 0.8, DEFAULT_LEVEL, 0.95, 0.99];

/// Calibrates intervals of all levels with enough validation images; `None` if there are too few,
/// or if a residual is not finite.
pub(crate) fn calibrate(validation: &[Scored]) -> Option<Calibration> {
    let levels = half_widths(validation);
    // Older programs read one level: the default, or the next below it.
    let single = levels
        .iter()
        .rev()
        .find(|found| found.level <= DEFAULT_LEVEL)?;
    let mut bands: BTreeMap<u32, Vec<Scored>> = BTreeMap::new();
    for one in validation {
        bands.entry(band_of(one.predicted)).or_default().push(*one);
    }
    let bands = bands.into_iter().map(|(from, members)| Band {
        from,
        images: members.len() as u64,
        levels: half_widths(&members),
    });
    Some(Calibration {
        confidence: single.level,
        half_width: single.half_width,
        images: validation.len() as u64,
        bands: bands.filter(|band| !band.levels.is_empty()).collect(),
        levels,
    })
}

/// The half widths of those [`LEVELS`] with enough residuals; none if a residual is not finite.
fn half_widths(scored: &[Scored]) -> Vec<HalfWidth> {
    let mut residuals: Vec<f64> = scored.iter().map(|one| one.error().abs()).collect();
    if residuals.iter().any(|residual| !residual.is_finite()) {
        return Vec::new();
    }
    residuals.sort_by(f64::total_cmp);
    let half_width = |level: f64| {
        // Tolerates rounding errors: 20 times 0.95 must be 19.
        let rank = ((residuals.len() + 1) as f64 * level - 1e-9).ceil() as usize;
        let half_width = *residuals.get(rank.checked_sub(1)?)?;
        Some(HalfWidth { level, half_width })
    };
    LEVELS.into_iter().filter_map(half_width).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Images with these residuals at one predicted age.
    fn residuals(predicted: f64, residuals: impl IntoIterator<Item = u32>) -> Vec<Scored> {
        let image = |residual: u32| Scored {
            age: predicted - f64::from(residual),
            predicted,
        };
        residuals.into_iter().map(image).collect()
    }

    fn pairs(levels: &[HalfWidth]) -> Vec<(f64, f64)> {
        levels
            .iter()
            .map(|found| (found.level, found.half_width))
            .collect()
    }

    #[test]
    fn conformal_rank_is_the_ceiling_of_n_plus_one_times_the_level() {
        // Nine residuals 1 to 9: ceil(10 · 0.5) = 5, ceil(10 · 0.8) = 8, ceil(10 · 0.9) = 9;
        // ceil(10 · 0.95) = 10 > 9.
        let nine = calibrate(&residuals(35.0, 1..=9)).unwrap();
        assert_eq!(pairs(&nine.levels), [(0.5, 5.0), (0.8, 8.0), (0.9, 9.0)]);
        assert_eq!((nine.confidence, nine.half_width), (0.9, 9.0));
        // Eight: ceil(9 · 0.5) = 5, ceil(9 · 0.8) = 8, ceil(9 · 0.9) = 9 > 8. What a program with
        // one level sees says that it is 0.8.
        let eight = calibrate(&residuals(35.0, 1..=8)).unwrap();
        assert_eq!(pairs(&eight.levels), [(0.5, 5.0), (0.8, 8.0)]);
        assert_eq!((eight.confidence, eight.half_width), (0.8, 8.0));
        // Nineteen: ceil(20 · 0.5) = 10, 16, 18, 19; ceil(20 · 0.99) = 20 > 19. Ninety-nine: 50,
        // 80, 90, 95 and 99.
        let nineteen = calibrate(&residuals(35.0, 1..=19)).unwrap();
        let expected = [(0.5, 10.0), (0.8, 16.0), (0.9, 18.0), (0.95, 19.0)];
        assert_eq!(pairs(&nineteen.levels), expected);
        let most = calibrate(&residuals(35.0, 1..=99)).unwrap();
        let widths: Vec<f64> = most.levels.iter().map(|found| found.half_width).collect();
        assert_eq!(widths, [50.0, 80.0, 90.0, 95.0, 99.0]);
    }

    #[test]
    fn conformal_bands_go_by_predicted_age_and_match_a_hand_calculation() {
        // Predicted 25: residuals 1 to 9. Predicted 64: 10, 20, 30, 40. Predicted 80: none below
        // 0.5 but one of 7.
        let images = [
            residuals(25.0, 1..=9),
            residuals(64.0, [40, 10, 30, 20]),
            residuals(80.0, [7]),
        ]
        .concat();
        let found = calibrate(&images).unwrap();
        // All fourteen, sorted: 1 2 3 4 5 6 7 7 8 9 10 20 30 40. ceil(15 · 0.5) = 8, ceil(15 · 0.8)
        // = 12, ceil(15 · 0.9) = 14.
        assert_eq!(pairs(&found.levels), [(0.5, 7.0), (0.8, 20.0), (0.9, 40.0)]);
        let bands: Vec<_> = found
            .bands
            .iter()
            .map(|band| (band.from, band.images, pairs(&band.levels)))
            .collect();
        assert_eq!(
            bands,
            [
                (20, 9, vec![(0.5, 5.0), (0.8, 8.0), (0.9, 9.0)]),
                // ceil(5 · 0.5) = 3, ceil(5 · 0.8) = 4, ceil(5 · 0.9) = 5 > 4.
                (60, 4, vec![(0.5, 30.0), (0.8, 40.0)]),
                // ceil(2 · 0.5) = 1, ceil(2 · 0.8) = 2 > 1.
                (80, 1, vec![(0.5, 7.0)]),
            ]
        );
        // A band that lacks the level, and an age without a band, use all images'.
        assert_eq!(found.half_width(0.9, 64.0), Some(40.0));
        assert_eq!(found.half_width(0.8, 85.0), Some(20.0));
        assert_eq!(found.half_width(0.8, 29.9), Some(8.0));
        assert_eq!(found.half_width(0.5, 41.0), Some(7.0));
    }

    #[test]
    fn conformal_intervals_hold_their_share_of_images_like_those_of_the_validation() {
        use rand::{Rng, SeedableRng, rngs::StdRng};
        // Errors that grow with age, so that one width for all would be too wide for the young and
        // too narrow for the old.
        let mut random = StdRng::seed_from_u64(5);
        let mut image = || {
            let predicted: f64 = random.random_range(0.0..80.0);
            let spread = 1.0 + predicted / 8.0;
            let error: f64 = random.random_range(-spread..spread);
            Scored {
                age: predicted - error,
                predicted,
            }
        };
        let validation: Vec<Scored> = (0..4_000).map(|_| image()).collect();
        let fresh: Vec<Scored> = (0..40_000).map(|_| image()).collect();
        let calibration = calibrate(&validation).unwrap();
        for level in LEVELS {
            for from in (0..80).step_by(10) {
                let band: Vec<_> = fresh
                    .iter()
                    .filter(|one| band_of(one.predicted) == from)
                    .collect();
                let inside = band.iter().filter(|one| {
                    let half_width = calibration.half_width(level, one.predicted).unwrap();
                    one.error().abs() <= half_width
                });
                let coverage = inside.count() as f64 / band.len() as f64;
                // Some 500 residuals a band: a standard deviation of at most 0.023.
                assert!((coverage - level).abs() < 0.08, "{level} {from} {coverage}");
            }
        }
    }

    #[test]
    fn without_residuals_or_with_nan_there_is_no_calibration() {
        assert_eq!(calibrate(&[]), None);
        let mut images = residuals(30.0, 1..=20);
        images[3].predicted = f64::NAN;
        assert_eq!(calibrate(&images), None);
    }
}
