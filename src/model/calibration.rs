//! Prediction intervals, calibrated from validation residuals, as stored in the manifest.
//!
//! Manifests of older programs have `confidence` and `half_width` only and are read as one level.
//! Older programs ignore `levels` and `bands` and use those two, so both directions work with the
//! same format version.

use serde::{Deserialize, Serialize};

/// The default level of an interval.
pub(crate) const DEFAULT_LEVEL: f64 = 0.9;

/// Width of a band of predicted ages in years.
pub(crate) const BAND_YEARS: u32 = 10;

/// Half widths of intervals that contain given shares of true ages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "Stored")]
pub(crate) struct Calibration {
    /// The level for programs that read one only: 0.9, or the highest available level below it.
    pub confidence: f64,
    /// Half the width of its interval in years, for any predicted age.
    pub half_width: f64,
    /// Number of residuals.
    pub images: u64,
    /// Half widths by level, for any predicted age, in ascending order of levels; at least one.
    pub levels: Vec<HalfWidth>,
    /// Half widths by predicted age, in ascending order; bands without a level are omitted.
    pub bands: Vec<Band>,
}

/// Half the width of an interval that contains a share of true ages.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct HalfWidth {
    /// The share, between 0 and 1.
    pub level: f64,
    /// Half the width in years.
    pub half_width: f64,
}

/// Half widths for predicted ages of `from` to below `from + 10` years.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Band {
    /// First age of the band in years, a multiple of ten.
    pub from: u32,
    /// Number of residuals.
    pub images: u64,
    /// The levels with enough residuals, in ascending order.
    pub levels: Vec<HalfWidth>,
}

/// First age of the band of a predicted age; ages below zero belong to the first band.
pub(crate) fn band_of(predicted: f64) -> u32 {
    // The cast saturates and converts NaN to zero.
    (predicted / f64::from(BAND_YEARS)) as u32 * BAND_YEARS
}

impl Calibration {
    /// The smallest level of at least `wanted`; `None` if all are lower.
    pub(crate) fn level_for(&self, wanted: f64) -> Option<f64> {
        // Levels are stored in decimal, so 0.8 may be off by a rounding error.
        let levels = self.levels.iter().map(|quantile| quantile.level);
        levels.into_iter().find(|level| *level >= wanted - 1e-9)
    }

    /// Lower and upper end in years, at least 0, of the interval of a level around a predicted age;
    /// `None` for a level that [`Self::level_for`] does not return.
    ///
    /// The half width is the band's if it has the level, else that of all ages, and at least that
    /// of a lower level.
    pub(crate) fn interval(&self, level: f64, predicted: f64) -> Option<(f64, f64)> {
        let half_width = self.half_width(level, predicted)?;
        let upper = (predicted + half_width).max(0.0);
        Some(((predicted - half_width).max(0.0), upper))
    }

    /// Half the width in years of the interval of a level around a predicted age; see
    /// [`Self::interval`].
    pub(crate) fn half_width(&self, level: f64, predicted: f64) -> Option<f64> {
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

    /// Returns true if all levels and half widths are in range.
    pub(crate) fn is_valid(&self) -> bool {
        /// Far more than any age, far less than overflows.
        const MAX_YEARS: f64 = 1e6;
        let overall = HalfWidth {
            level: self.confidence,
            half_width: self.half_width,
        };
        let of_bands = self.bands.iter().flat_map(|band| &band.levels);
        let mut all = std::iter::once(&overall)
            .chain(&self.levels)
            .chain(of_bands);
        all.all(|found| {
            let is_share = found.level > 0.0 && found.level < 1.0;
            is_share && (0.0..=MAX_YEARS).contains(&found.half_width)
        })
    }

    /// The levels for messages: `0.5, 0.8, 0.9`.
    pub(crate) fn listed_levels(&self) -> String {
        let levels: Vec<String> = self
            .levels
            .iter()
            .map(|quantile| quantile.level.to_string())
            .collect();
        levels.join(", ")
    }
}

/// The stored form, of older programs and this one.
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
    fn a_level_between_two_rounds_up() {
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
    fn a_calibration_without_levels_is_read_as_one_level() {
        let old = r#"{"confidence": 0.9, "half_width": 7.5, "images": 40}"#;
        let read: Calibration = serde_json::from_str(old).unwrap();
        assert_eq!(read.levels, widths(&[(0.9, 7.5)]));
        assert_eq!(read.level_for(0.8), Some(0.9));
        assert_eq!(read.interval(0.9, 30.0), Some((22.5, 37.5)));
    }

    #[test]
    fn a_program_without_levels_reads_current_manifests() {
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
