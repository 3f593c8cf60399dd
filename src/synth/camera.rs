//! One image of a person: the drawing as a camera with its light, white balance, focus and noise
//! sees it.

use image::RgbImage;
use rand::Rng;

use super::{
    directory::{Error, SIZES},
    draw::Canvas,
    face,
    person::Person,
};

impl Person {
    /// Draws this person on an image of `size` by `size` pixels, 32 to 2048.
    ///
    /// The background, the pose, the light and the noise come from `rng`, so two calls give two
    /// images of one person.
    ///
    /// # Errors
    /// [`Error::Size`] for a size out of range.
    pub fn draw(&self, size: u32, rng: &mut impl Rng) -> Result<RgbImage, Error> {
        if !SIZES.contains(&size) {
            return Err(Error::Size { found: size });
        }
        let out_of_range = || Error::Size { found: size };
        let mut canvas = Canvas::new(size).ok_or_else(out_of_range)?;
        face::compose(self, &mut canvas, rng);
        let mut image =
            RgbImage::from_raw(size, size, canvas.into_rgb()).ok_or_else(out_of_range)?;
        expose(&mut image, rng);
        Ok(image)
    }
}

/// Applies one random camera to `image`.
fn expose(image: &mut RgbImage, rng: &mut impl Rng) {
    if rng.random_bool(0.5) {
        soften(image, rng.random_range(0.1..0.6));
    }
    let exposure = rng.random_range(0.92..1.08_f32);
    let warmth = rng.random_range(-0.04..0.04_f32);
    let contrast = rng.random_range(0.92..1.08_f32);
    // Light comes from one side: the gain changes linearly across the image.
    let slope = (
        rng.random_range(-0.13..0.13_f32),
        rng.random_range(-0.13..0.13_f32),
    );
    let noise = rng.random_range(0.5..2.6_f32);
    let side = image.width().max(1) as f32;
    let gains = [
        exposure * (1.0 + warmth),
        exposure,
        exposure * (1.0 - warmth),
    ];
    for (x, y, pixel) in image.enumerate_pixels_mut() {
        let (across, down) = (2.0 * x as f32 / side - 1.0, 2.0 * y as f32 / side - 1.0);
        let light = 1.0 + slope.0 * across + slope.1 * down;
        // The sum of two random bytes has a standard deviation of 104: a grain that all channels
        // share, and a weaker tint for each.
        let [first, second, third, fourth] = rng.random::<u32>().to_le_bytes().map(f32::from);
        let grain = (first + second - 255.0) / 104.0 * noise;
        let tints = [third - 127.5, fourth - 127.5, 255.0 - third - fourth]
            .map(|tint| tint / 104.0 * 0.5 * noise);
        for ((channel, gain), tint) in pixel.0.iter_mut().zip(gains).zip(tints) {
            let lit = f32::from(*channel) * gain * light;
            let value = 118.0 + (lit - 118.0) * contrast + grain + tint;
            *channel = value.round().clamp(0.0, 255.0) as u8;
        }
    }
}

/// Blends every pixel with the mean of its 3 by 3 neighbourhood; the outermost pixels stay.
fn soften(image: &mut RgbImage, share: f32) {
    let sharp = image.clone();
    let (width, height) = sharp.dimensions();
    for y in 1..height.saturating_sub(1) {
        for x in 1..width.saturating_sub(1) {
            for channel in 0..3 {
                let mut sum = 0_u32;
                for (across, down) in
                    (0..3).flat_map(|down| (0..3).map(move |across| (across, down)))
                {
                    sum += u32::from(sharp.get_pixel(x + across - 1, y + down - 1).0[channel]);
                }
                let own = f32::from(sharp.get_pixel(x, y).0[channel]);
                let value = own + (sum as f32 / 9.0 - own) * share;
                image.get_pixel_mut(x, y).0[channel] = value.round().clamp(0.0, 255.0) as u8;
            }
        }
    }
}
