//! Plots of predicted age and residuals against true age, as PNG.

use std::{io::Cursor, sync::LazyLock};

use image::{ImageFormat, RgbImage};
use plotters::{
    coord::{Shift, types::RangedCoordf64},
    prelude::*,
    style::register_font,
};

use super::{Scored, metrics::Intervals};

/// Width and height of a plot in pixels.
const SIZE: (u32, u32) = (900, 760);
/// With more points only every n-th is drawn, because more cannot be distinguished.
const MAX_POINTS: usize = 20_000;
const BLUE_POINTS: RGBColor = RGBColor(31, 90, 160);
const FONT: &str = "hack";

#[derive(Debug, thiserror::Error)]
#[error("failed to draw a plot: {0}")]
pub struct Error(String);

/// Draws predicted against true age with the line of perfect predictions and, if there are
/// intervals, the band in which an interval contains the true age. Returns a PNG.
///
/// # Errors
/// A failure of the drawing library.
pub(crate) fn predicted_against_true(
    scored: &[Scored],
    intervals: Option<Intervals<'_>>,
    caption: &str,
) -> Result<Vec<u8>, Error> {
    let ages = scored.iter().flat_map(|one| [one.age, one.predicted]);
    let (low, high) = tens_around(ages);
    draw(|area| {
        let mut chart = ChartBuilder::on(area)
            .margin(18)
            .caption(caption, (FONT, 20))
            .x_label_area_size(52)
            .y_label_area_size(60)
            .build_cartesian_2d(low..high, low..high)?;
        mesh(&mut chart, "true age (years)", "predicted age (years)")?;
        if let Some(intervals) = intervals {
            let style = BLUE_POINTS.mix(0.12);
            let outline = band(intervals, low, high);
            chart
                .draw_series([Polygon::new(outline, style)])?
                .label(format!("{} % interval", percent(intervals.level)))
                .legend(move |(x, y)| {
                    Rectangle::new([(x, y - 6), (x + 18, y + 6)], style.filled())
                });
        }
        chart
            .draw_series(LineSeries::new([(low, low), (high, high)], BLACK.mix(0.6)))?
            .label("prediction = truth")
            .legend(|(x, y)| PathElement::new([(x, y), (x + 18, y)], BLACK.mix(0.6)));
        points(&mut chart, scored, |one| (one.age, one.predicted))?;
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .label_font((FONT, 15))
            .background_style(WHITE.mix(0.85))
            .draw()?;
        Ok(())
    })
}

/// Draws prediction minus true age against true age. Returns a PNG.
///
/// # Errors
/// A failure of the drawing library.
pub(crate) fn residuals_against_true(scored: &[Scored], caption: &str) -> Result<Vec<u8>, Error> {
    let (first, last) = tens_around(scored.iter().map(|one| one.age));
    let (low, high) = tens_around(scored.iter().map(|one| one.error()).chain([0.0]));
    draw(|area| {
        let mut chart = ChartBuilder::on(area)
            .margin(18)
            .caption(caption, (FONT, 20))
            .x_label_area_size(52)
            .y_label_area_size(60)
            .build_cartesian_2d(first..last, low..high)?;
        mesh(
            &mut chart,
            "true age (years)",
            "predicted minus true age (years)",
        )?;
        chart.draw_series(LineSeries::new([(first, 0.0), (last, 0.0)], BLACK.mix(0.6)))?;
        points(&mut chart, scored, |one| (one.age, one.error()))
    })
}

type Backend<'a> = BitMapBackend<'a>;
type Chart<'a, 'b> = ChartContext<'a, Backend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;
type Drawn = Result<(), DrawingAreaErrorKind<<Backend<'static> as DrawingBackend>::ErrorType>>;

/// Draws on a white area and encodes it as PNG.
fn draw(drawing: impl FnOnce(&DrawingArea<Backend<'_>, Shift>) -> Drawn) -> Result<Vec<u8>, Error> {
    /// Registers the font once for the process; the library is built without system fonts.
    static FONT_IS_REGISTERED: LazyLock<bool> = LazyLock::new(|| {
        register_font(FONT, FontStyle::Normal, epaint_default_fonts::HACK_REGULAR).is_ok()
    });
    assert!(*FONT_IS_REGISTERED, "the embedded font is valid");
    let (width, height) = SIZE;
    let mut pixels = vec![0; width as usize * height as usize * 3];
    let drawn = {
        let area = BitMapBackend::with_buffer(&mut pixels, SIZE).into_drawing_area();
        area.fill(&WHITE)
            .and_then(|()| drawing(&area))
            .and_then(|()| area.present())
    };
    drawn.map_err(|error| Error(error.to_string()))?;
    let image = RgbImage::from_raw(width, height, pixels).expect("the pixels are of this size");
    let mut png = Cursor::new(Vec::new());
    image
        .write_to(&mut png, ImageFormat::Png)
        .map_err(|error| Error(error.to_string()))?;
    Ok(png.into_inner())
}

fn mesh(chart: &mut Chart<'_, '_>, x: &str, y: &str) -> Drawn {
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .bold_line_style(BLACK.mix(0.12))
        .axis_desc_style((FONT, 17))
        .label_style((FONT, 15))
        .x_desc(x)
        .y_desc(y)
        .x_label_formatter(&|years| format!("{years:.0}"))
        .y_label_formatter(&|years| format!("{years:.0}"))
        .draw()
}

fn points(
    chart: &mut Chart<'_, '_>,
    scored: &[Scored],
    place: impl Fn(&Scored) -> (f64, f64),
) -> Drawn {
    let step = scored.len().div_ceil(MAX_POINTS).max(1);
    // Transparency shows the density of overlapping points.
    let opacity = if scored.len() > 500 { 0.3 } else { 0.7 };
    let style = BLUE_POINTS.mix(opacity).filled();
    let circles = scored
        .iter()
        .step_by(step)
        .map(|one| Circle::new(place(one), 3, style));
    chart.draw_series(circles)?;
    Ok(())
}

/// The outline of the points (true, predicted) with the true age within the interval of the
/// predicted age.
fn band(intervals: Intervals<'_>, low: f64, high: f64) -> Vec<(f64, f64)> {
    // A tenth of a year, so that the steps between age bands look vertical.
    let steps = ((high - low) * 10.0) as u32;
    let predicted: Vec<f64> = (0..=steps)
        .map(|step| low + f64::from(step) / 10.0)
        .collect();
    let side = |sign: f64, predicted: f64| {
        let half_width = intervals.calibration.half_width(intervals.level, predicted);
        let truth = predicted + sign * half_width.unwrap_or(0.0);
        (truth.clamp(low, high), predicted)
    };
    let left = predicted.iter().map(|age| side(-1.0, *age));
    let right = predicted.iter().rev().map(|age| side(1.0, *age));
    left.chain(right).collect()
}

/// The enclosing multiples of ten, at least ten apart.
fn tens_around(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
    for value in values.filter(|value| value.is_finite()) {
        (low, high) = (low.min(value), high.max(value));
    }
    if low > high {
        return (0.0, 10.0);
    }
    let low = (low / 10.0).floor() * 10.0;
    (low, ((high / 10.0).ceil() * 10.0).max(low + 10.0))
}

/// A share as a percentage with at most one decimal.
fn percent(share: f64) -> f64 {
    (share * 1_000.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use crate::model::calibration::{Calibration, HalfWidth};

    use super::*;

    fn decoded(png: &[u8]) -> RgbImage {
        let image = image::load_from_memory_with_format(png, ImageFormat::Png).unwrap();
        assert_eq!((image.width(), image.height()), SIZE);
        image.into_rgb8()
    }

    /// Pixels that are as blue as points, or as the band is where nothing else lies.
    fn count(image: &RgbImage, colour: [u8; 3]) -> usize {
        let near = |pixel: &&image::Rgb<u8>| {
            let channels = pixel.0.iter().zip(colour);
            channels
                .into_iter()
                .all(|(one, other)| one.abs_diff(other) < 12)
        };
        image.pixels().filter(near).count()
    }

    #[test]
    fn evaluation_plots_show_points_and_the_band() {
        let scored: Vec<Scored> = (0..60)
            .map(|number| Scored {
                age: f64::from(number),
                predicted: f64::from(number) * 0.8 + 5.0,
            })
            .collect();
        let calibration = Calibration {
            confidence: 0.9,
            half_width: 7.0,
            images: 30,
            levels: vec![HalfWidth {
                level: 0.9,
                half_width: 7.0,
            }],
            bands: Vec::new(),
        };
        let intervals = Intervals::at(Some(&calibration), 0.9);
        let with_band = predicted_against_true(&scored, intervals, "with").unwrap();
        let without_band = predicted_against_true(&scored, None, "without").unwrap();
        let (band, point) = ([228, 235, 244], [98, 140, 189]);
        let (with_band, without_band) = (decoded(&with_band), decoded(&without_band));
        // 14 of 60 years wide, on some 780 by 600 pixels.
        assert!(
            count(&with_band, band) > 50_000,
            "{}",
            count(&with_band, band)
        );
        assert!(count(&without_band, band) < 5_000);
        // Sixty circles of some 29 pixels.
        assert!(count(&without_band, point) > 1_000);
        let residuals = decoded(&residuals_against_true(&scored, "errors").unwrap());
        assert!(count(&residuals, point) > 1_000);
    }

    #[test]
    fn one_image_of_an_evaluation_is_drawn() {
        let scored = [Scored {
            age: 30.0,
            predicted: 30.0,
        }];
        decoded(&predicted_against_true(&scored, None, "").unwrap());
        decoded(&residuals_against_true(&scored, "").unwrap());
    }

    #[test]
    fn axes_go_by_tens() {
        assert_eq!(tens_around([3.0, 27.0].into_iter()), (0.0, 30.0));
        assert_eq!(tens_around([-0.5, 10.0].into_iter()), (-10.0, 10.0));
        assert_eq!(tens_around([20.0].into_iter()), (20.0, 30.0));
        assert_eq!(tens_around([].into_iter()), (0.0, 10.0));
    }
}
