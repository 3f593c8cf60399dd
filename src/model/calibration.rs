//! Prediction intervals: what a training learned from its validation residuals, as the manifest keeps it.
//!
//! A manifest of before there were levels has `confidence` and `half_width` alone and is read as one level. A program of that time ignores `levels`
//! and `bands` and goes by those two, so both directions work with the same format version.

use serde::{Deserialize, Serialize};

/// The level of an interval when nobody asks for another.
pub const DEFAULT_LEVEL: f64 = 0.9;

/// Width of a band of predicted ages in years.
pub const BAND_YEARS: u32 = 10;

/// What was learned from the validation residuals: half widths of intervals that hold given shares of true ages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "Stored")]
pub struct Calibration {
    /// The level for programs that know one only: 0.9, or the highest below it that could be given.
    pub confidence: f64,
    /// Half the width of its interval in years, whatever the predicted age.
    pub half_width: f64,
    /// Number of residuals.
    pub images: u64,
    /// Half widths by level, whatever the predicted age; levels rise, and there is at least one.
    pub levels: Vec<HalfWidth>,
    /// The same by predicted age; bands rise, and those without any level of their own are left out.
    pub bands: Vec<Band>,
}

/// Half the width of an interval that holds a share of true ages.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct HalfWidth {
    /// The share, between 0 and 1.
    pub level: f64,
    /// Half the width in years.
    pub half_width: f64,
}

/// Half widths for predicted ages of `from` to below `from + 10` years.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Band {
    /// First age of the band in years, a multiple of ten.
    pub from: u32,
    /// Number of residuals.
    pub images: u64,
    /// Those levels that the band has enough residuals for; levels rise.
    pub levels: Vec<HalfWidth>,
}

/// The age in years at which the band of a predicted age begins; ages below zero belong to the first.
pub fn band_of(predicted: f64) -> u32 {
    // The cast saturates, and makes zero of what is not a number.
    (predicted / f64::from(BAND_YEARS)) as u32 * BAND_YEARS
}

impl Calibration {
    /// The smallest level that there is of at least `wanted`; `None` when all are lower.
    pub fn level_for(&self, wanted: f64) -> Option<f64> {
        // Levels are written in decimal, so 0.8 may come back a rounding error away.
        let levels = self.levels.iter().map(|quantile| quantile.level);
        levels.into_iter().find(|level| *level >= wanted - 1e-9)
    }

    /// Lower and upper end in years, not below 0, of the interval of a level about a predicted age; `None` for a level that [`Self::level_for`] does not return.
    ///
    /// The half width is the band's where it has the level, else that of all ages, and never less than that of a lower level.
    pub fn interval(&self, level: f64, predicted: f64) -> Option<(f64, f64)> {
        let half_width = self.half_width(level, predicted)?;
        let upper = (predicted + half_width).max(0.0);
        Some(((predicted - half_width).max(0.0), upper))
    }

    /// Half the width in years of the interval of a level about a predicted age; see [`Self::interval`].
    pub fn half_width(&self, level: f64, predicted: f64) -> Option<f64> {
        self.levels.iter().find(|overall| overall.level == level)?;
        let from = band_of(predicted);
        let band = self.bands.iter().find(|band| band.from == from);
        let of_band = |level: f64| {
            let mut levels = band?.levels.iter();
            levels.find(|found| found.level == level)
        };
        let up_to = self.levels.iter().filter(|overall| overall.level <= level);
        up_to
            .map(|overall| of_band(overall.level).unwrap_or(overall).half_width)
            .reduce(f64::max)
    }

    /// The levels that there are, for people: `0.5, 0.8, 0.9`.
    pub fn listed_levels(&self) -> String {
        let levels: Vec<String> = self
            .levels
            .iter()
            .map(|quantile| quantile.level.to_string())
            .collect();
        levels.join(", ")
    }
}

/// As it lies on disk, by an older program or this one.
#[derive(Deserialize)]
struct Stored {
    confidence: f64,
    half_width: f64,
    images: u64,
    #[serde(default)]
    levels: Vec<HalfWidth>,
    #[serde(default)]
    bands: Vec<Band>,
}

impl From<Stored> for Calibration {
    fn from(mut stored: Stored) -> Self {
        if stored.levels.is_empty() {
            stored.levels.push(HalfWidth {
                level: stored.confidence,
                half_width: stored.half_width,
            });
        }
        Calibration {
            confidence: stored.confidence,
            half_width: stored.half_width,
            images: stored.images,
            levels: stored.levels,
            bands: stored.bands,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn widths(pairs: &[(f64, f64)]) -> Vec<HalfWidth> {
        let width = |&(level, half_width): &(f64, f64)| HalfWidth { level, half_width };
        pairs.iter().map(width).collect()
    }

    fn calibration() -> Calibration {
        Calibration {
            confidence: 0.9,
            half_width: 8.0,
            images: 30,
            levels: widths(&[(0.5, 3.0), (0.8, 6.0), (0.9, 8.0)]),
            bands: vec![
                Band {
                    from: 20,
                    images: 9,
                    levels: widths(&[(0.5, 1.0), (0.8, 2.0), (0.9, 4.0)]),
                },
                Band {
                    from: 60,
                    images: 4,
                    levels: widths(&[(0.5, 9.0), (0.8, 11.0)]),
                },
            ],
        }
    }

    #[test]
    fn a_level_between_two_gets_the_higher() {
        let calibration = calibration();
        assert_eq!(calibration.level_for(0.8), Some(0.8));
        assert_eq!(calibration.level_for(0.81), Some(0.9));
        assert_eq!(calibration.level_for(0.1), Some(0.5));
        assert_eq!(calibration.level_for(0.95), None);
        assert_eq!(calibration.listed_levels(), "0.5, 0.8, 0.9");
    }

    #[test]
    fn the_band_of_the_predicted_age_decides_where_it_has_the_level() {
        let calibration = calibration();
        assert_eq!(calibration.interval(0.9, 20.0), Some((16.0, 24.0)));
        assert_eq!(calibration.interval(0.9, 29.9), Some((25.9, 33.9)));
        // No band of its own, and none below zero years.
        assert_eq!(calibration.interval(0.9, 30.0), Some((22.0, 38.0)));
        assert_eq!(calibration.interval(0.9, 5.0), Some((0.0, 13.0)));
        assert_eq!(calibration.interval(0.5, -5.0), Some((0.0, 0.0)));
        // The band lacks 0.9, and 8 years of all ages would be less than its own 11 at 0.8.
        assert_eq!(calibration.interval(0.9, 60.0), Some((49.0, 71.0)));
        assert_eq!(calibration.interval(0.95, 60.0), None);
    }

    #[test]
    fn bands_are_ten_years_from_zero() {
        let bands = [-3.0, 0.0, 9.99, 10.0, 119.0, f64::NAN].map(band_of);
        assert_eq!(bands, [0, 0, 0, 10, 110, 0]);
    }

    #[test]
    fn a_calibration_of_before_there_were_levels_is_one_level() {
        let old = r#"{"confidence": 0.9, "half_width": 7.5, "images": 40}"#;
        let read: Calibration = serde_json::from_str(old).unwrap();
        assert_eq!(read.levels, widths(&[(0.9, 7.5)]));
        assert_eq!(read.level_for(0.8), Some(0.9));
        assert_eq!(read.interval(0.9, 30.0), Some((22.5, 37.5)));
    }

    #[test]
    fn a_program_of_before_there_were_levels_reads_what_is_written_now() {
        /// As that program declared it.
        #[derive(Debug, PartialEq, Deserialize)]
        struct Old {
            confidence: f64,
            half_width: f64,
            images: u64,
        }
        let written = serde_json::to_string(&calibration()).unwrap();
        let expected = Old {
            confidence: 0.9,
            half_width: 8.0,
            images: 30,
        };
        assert_eq!(serde_json::from_str::<Old>(&written).unwrap(), expected);
        let again: Calibration = serde_json::from_str(&written).unwrap();
        assert_eq!(again, calibration());
    }
}
