//! Draws an age on a picture.

use std::io::Cursor;

use ab_glyph::{Font, FontRef, PxScale, ScaleFont};
use image::{ImageFormat, Rgb, RgbImage};
use imageproc::drawing::draw_text_mut;

/// Pictures wider than this are drawn smaller, so that an answer does not outgrow the message limit; in pixels.
const MAX_SIDE: u32 = 1024;

/// Draws a band with the age, and the interval (lower, upper, share) if there is one, on the lower edge of what [`fit`] returned; returns a PNG.
pub fn draw(mut canvas: RgbImage, age: f64, interval: Option<(f64, f64, f64)>) -> Vec<u8> {
    let (width, height) = canvas.dimensions();
    let text = match interval {
        Some((lower, upper, _)) => format!("{age:.0} years ({lower:.0}-{upper:.0})"),
        None => format!("{age:.0} years"),
    };
    let font = FontRef::try_from_slice(epaint_default_fonts::HACK_REGULAR)
        .expect("the embedded font is valid");
    let text_height = text_height(&font, &text, width as f32 * 0.9, height as f32 * 0.12);
    let band_top = (height as f32 - text_height * 1.5).max(0.0) as u32;
    for (_, y, pixel) in canvas.enumerate_pixels_mut() {
        if y >= band_top {
            *pixel = Rgb(pixel.0.map(|value| value / 3));
        }
    }
    let left = (width as f32 * 0.05) as i32;
    let top = band_top as i32 + (text_height * 0.2) as i32;
    draw_text_mut(
        &mut canvas,
        Rgb([255, 255, 255]),
        left,
        top,
        PxScale::from(text_height),
        &font,
        &text,
    );
    let mut png = Cursor::new(Vec::new());
    canvas
        .write_to(&mut png, ImageFormat::Png)
        .expect("writing a picture to memory cannot fail");
    png.into_inner()
}

/// A copy of the picture whose sides are at most 1024 pixels.
pub fn fit(picture: &RgbImage) -> RgbImage {
    let (width, height) = picture.dimensions();
    let longest = width.max(height);
    if longest <= MAX_SIDE {
        return picture.clone();
    }
    let scaled =
        |side: u32| (u64::from(side) * u64::from(MAX_SIDE) / u64::from(longest)).max(1) as u32;
    image::imageops::thumbnail(picture, scaled(width), scaled(height))
}

/// The largest height in pixels at which the text fits, at most `limit` and at least 8.
fn text_height(font: &FontRef<'_>, text: &str, width: f32, limit: f32) -> f32 {
    let unit = font.as_scaled(PxScale::from(1.0));
    let advance: f32 = text
        .chars()
        .map(|symbol| unit.h_advance(unit.glyph_id(symbol)))
        .sum();
    (width / advance).min(limit).max(8.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_band_is_dark_with_white_text_and_the_rest_untouched() {
        let picture = RgbImage::from_pixel(200, 200, Rgb([200, 100, 50]));
        let png = draw(picture, 41.3, Some((33.0, 49.6, 0.9)));
        let drawn = image::load_from_memory_with_format(&png, ImageFormat::Png)
            .unwrap()
            .into_rgb8();
        assert_eq!(drawn.dimensions(), (200, 200));
        assert_eq!(drawn.get_pixel(100, 20).0, [200, 100, 50]);
        assert_eq!(drawn.get_pixel(1, 199).0, [66, 33, 16]);
        let white = drawn
            .pixels()
            .filter(|pixel| pixel.0.iter().all(|value| *value > 230))
            .count();
        assert!(white > 100, "only {white} white pixels");
    }

    #[test]
    fn large_pictures_shrink_and_tiny_ones_do_not_panic() {
        let wide = draw(fit(&RgbImage::new(4000, 500)), 30.0, None);
        let wide = image::load_from_memory(&wide).unwrap();
        assert_eq!((wide.width(), wide.height()), (1024, 128));
        let dot = image::load_from_memory(&draw(fit(&RgbImage::new(1, 1)), 30.0, None)).unwrap();
        assert_eq!((dot.width(), dot.height()), (1, 1));
    }
}
