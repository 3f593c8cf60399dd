//! Draws ages on images.

use std::io::Cursor;

use ab_glyph::{Font, FontRef, PxScale, ScaleFont};
use image::{ImageFormat, Rgb, RgbImage};
use imageproc::{
    drawing::{draw_hollow_rect_mut, draw_text_mut},
    rect::Rect,
};

use super::Interval;
use crate::detection::Square;

/// Largest side of a drawing in pixels, so that a response does not exceed the message limit.
const MAX_SIDE: u32 = 1024;

/// Draws a band with the age and the interval on the lower edge of an image that [`fit`] returned.
/// Returns a PNG.
pub(super) fn draw(mut canvas: RgbImage, age: f64, interval: Option<Interval>) -> Vec<u8> {
    let (width, height) = canvas.dimensions();
    let text = match interval {
        Some(Interval { lower, upper, .. }) => format!("{age:.0} years ({lower:.0}-{upper:.0})"),
        None => format!("{age:.0} years"),
    };
    let font = font();
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
    png(&canvas)
}

/// A face to draw.
#[derive(Debug, Clone, Copy)]
pub(super) struct FaceMark {
    /// In pixels of the original image.
    pub(super) square: Square,
    pub(super) age: f64,
    pub(super) interval: Option<Interval>,
}

/// Draws a frame around each face, with its age above, on a canvas that [`fit`] made from an image
/// of this width. Returns a PNG.
pub(super) fn draw_faces(mut canvas: RgbImage, image_width: u32, faces: &[FaceMark]) -> Vec<u8> {
    const FRAME: Rgb<u8> = Rgb([255, 210, 0]);
    let font = font();
    let scale = f64::from(canvas.width()) / f64::from(image_width.max(1));
    let shrunk = |pixels: f64| (pixels * scale).round() as i32;
    let thickness = (canvas.width().min(canvas.height()) / 300 + 1) as i32;
    for face in faces {
        let (left, top) = (
            shrunk(f64::from(face.square.left)),
            shrunk(f64::from(face.square.top)),
        );
        let side = shrunk(f64::from(face.square.side)).max(1);
        for inset in 0..thickness.min(side / 2 + 1) {
            let inner = (side - 2 * inset).max(1) as u32;
            let frame = Rect::at(left + inset, top + inset).of_size(inner, inner);
            draw_hollow_rect_mut(&mut canvas, frame, FRAME);
        }
        let text = match face.interval {
            Some(Interval { lower, upper, .. }) => {
                format!("{:.0} ({lower:.0}-{upper:.0})", face.age)
            }
            None => format!("{:.0}", face.age),
        };
        let height = text_height(&font, &text, side as f32 * 1.2, 28.0).max(9.0);
        // Inside the image, also for a face at its edge.
        let row = (top - (height * 1.2) as i32).max(0);
        let column = left.max(0);
        let width = text_width(&font, &text) * height;
        for y in row..row + (height * 1.2) as i32 {
            for x in column..column + width as i32 + 4 {
                if let Some(pixel) = canvas.get_pixel_mut_checked(x as u32, y as u32) {
                    *pixel = Rgb(pixel.0.map(|value| value / 4));
                }
            }
        }
        let scale = PxScale::from(height);
        draw_text_mut(&mut canvas, FRAME, column + 2, row, scale, &font, &text);
    }
    png(&canvas)
}

pub(super) fn png(image: &RgbImage) -> Vec<u8> {
    let mut png = Cursor::new(Vec::new());
    image
        .write_to(&mut png, ImageFormat::Png)
        .expect("writing an image to memory cannot fail");
    png.into_inner()
}

fn font() -> FontRef<'static> {
    FontRef::try_from_slice(epaint_default_fonts::HACK_REGULAR).expect("the embedded font is valid")
}

/// Returns a copy of the image with sides of at most 1024 pixels.
pub(super) fn fit(image: &RgbImage) -> RgbImage {
    let (width, height) = image.dimensions();
    let longest = width.max(height);
    if longest <= MAX_SIDE {
        return image.clone();
    }
    let scaled =
        |side: u32| (u64::from(side) * u64::from(MAX_SIDE) / u64::from(longest)).max(1) as u32;
    image::imageops::thumbnail(image, scaled(width), scaled(height))
}

/// Returns the largest height in pixels at which the text fits, at most `limit` and at least 8.
fn text_height(font: &FontRef<'_>, text: &str, width: f32, limit: f32) -> f32 {
    (width / text_width(font, text)).min(limit).max(8.0)
}

/// Returns the width of the text at a height of one pixel.
fn text_width(font: &FontRef<'_>, text: &str) -> f32 {
    let unit = font.as_scaled(PxScale::from(1.0));
    text.chars()
        .map(|symbol| unit.h_advance(unit.glyph_id(symbol)))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Option<Interval> = Some(Interval {
        lower: 33.0,
        upper: 49.6,
        level: 0.9,
    });

    #[test]
    fn the_band_is_dark_with_white_text_and_the_rest_untouched() {
        let image = RgbImage::from_pixel(200, 200, Rgb([200, 100, 50]));
        let png = draw(image, 41.3, INTERVAL);
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
    fn faces_are_framed_where_they_are_in_the_smaller_image() {
        let image = RgbImage::from_pixel(2048, 1000, Rgb([200, 100, 50]));
        let face = |left, top, side| FaceMark {
            square: Square { left, top, side },
            age: 41.3,
            interval: INTERVAL,
        };
        // The second reaches beyond the corner.
        let faces = [face(400, 300, 200), face(-50, -50, 150)];
        let png = draw_faces(fit(&image), image.width(), &faces);
        let drawn = image::load_from_memory(&png).unwrap().into_rgb8();
        assert_eq!(drawn.dimensions(), (1024, 500));
        let at = |x, y| drawn.get_pixel(x, y).0;
        for (x, y) in [(200, 150), (299, 150), (200, 249), (250, 249), (49, 20)] {
            assert_eq!(at(x, y), [255, 210, 0], "{x}, {y}");
        }
        assert_eq!(at(250, 200), [200, 100, 50]);
        // The age is on a dark band above.
        assert_eq!(at(201, 140), [50, 25, 12]);
        let plain = draw_faces(fit(&image), image.width(), &[]);
        let plain = image::load_from_memory(&plain).unwrap().into_rgb8();
        assert!(plain.pixels().all(|pixel| pixel.0 == [200, 100, 50]));
    }

    #[test]
    fn large_images_shrink_and_tiny_ones_do_not_panic() {
        let wide = draw(fit(&RgbImage::new(4000, 500)), 30.0, None);
        let wide = image::load_from_memory(&wide).unwrap();
        assert_eq!((wide.width(), wide.height()), (1024, 128));
        let dot = image::load_from_memory(&draw(fit(&RgbImage::new(1, 1)), 30.0, None)).unwrap();
        assert_eq!((dot.width(), dot.height()), (1, 1));
    }
}
