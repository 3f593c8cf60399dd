//! Random changes of training images, a function of seed, epoch and position, so a repeated epoch
//! has the same images.

use image::RgbImage;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::InputSpec;

/// Enabled random changes; by default there are no changes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Augmentation {
    /// Mirror half of the images.
    pub horizontal_flip: bool,
    /// Smallest share of the area of a crop, above 0 to 1; 1 keeps the whole image.
    pub min_crop_area: f64,
    /// Brightness is multiplied with 1 - x to 1 + x; x is 0 to 1.
    pub brightness: f64,
    /// As `brightness`.
    pub contrast: f64,
    /// As `brightness`.
    pub saturation: f64,
    /// Share of images with an erased rectangle, 0 to 1.
    pub erasing: f64,
}

impl Default for Augmentation {
    fn default() -> Self {
        Augmentation {
            horizontal_flip: false,
            min_crop_area: 1.0,
            brightness: 0.0,
            contrast: 0.0,
            saturation: 0.0,
            erasing: 0.0,
        }
    }
}

/// The changes of one image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Transform {
    /// Mirrors the image, after all other changes except the erasing.
    pub flip: bool,
    /// Applied before the image is resized.
    pub crop: Crop,
    pub brightness: f32,
    pub contrast: f32,
    pub saturation: f32,
    /// Rectangle of the network's input that is set to 0, the mean colour.
    pub erased: Option<Rectangle>,
}

impl Transform {
    pub const NONE: Transform = Transform {
        flip: false,
        crop: Crop::WHOLE,
        brightness: 1.0,
        contrast: 1.0,
        saturation: 1.0,
        erased: None,
    };
}

/// A part of an image; all in shares of its sides, 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Crop {
    pub left: f64,
    pub top: f64,
    /// Share of both sides that is kept.
    pub side: f64,
}

impl Crop {
    pub const WHOLE: Crop = Crop {
        left: 0.0,
        top: 0.0,
        side: 1.0,
    };
}

/// A rectangle in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rectangle {
    pub left: usize,
    pub top: usize,
    pub width: usize,
    pub height: usize,
}

impl Augmentation {
    pub(crate) fn is_none(&self) -> bool {
        *self == Augmentation::default()
    }

    /// Returns true if images are at most mirrored, so that each has only two variants.
    pub(crate) fn has_few_variants(&self) -> bool {
        let mirrored = Augmentation {
            horizontal_flip: self.horizontal_flip,
            ..Augmentation::default()
        };
        *self == mirrored
    }

    /// Draws the changes of the image at this position of the dataset in this epoch, for an input
    /// of `size` × `size` pixels.
    pub(crate) fn draw(&self, seed: u64, epoch: u64, position: u32, size: u32) -> Transform {
        if self.is_none() {
            return Transform::NONE;
        }
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8..16].copy_from_slice(&epoch.to_le_bytes());
        key[16..20].copy_from_slice(&position.to_le_bytes());
        // Distinct from the key of the order of images, which has the same seed and epoch.
        key[31] = 1;
        let mut random = ChaCha8Rng::from_seed(key);
        // All numbers are drawn, used or not, so that enabling one change does not affect the
        // others.
        let flip = random.random::<f64>() < 0.5;
        let side = between(&mut random, self.min_crop_area, 1.0).sqrt();
        let crop = Crop {
            left: between(&mut random, 0.0, 1.0 - side),
            top: between(&mut random, 0.0, 1.0 - side),
            side,
        };
        let mut factor = |x: f64| between(&mut random, 1.0 - x, 1.0 + x) as f32;
        let (brightness, contrast, saturation) = (
            factor(self.brightness),
            factor(self.contrast),
            factor(self.saturation),
        );
        let is_erased = random.random::<f64>() < self.erasing;
        Transform {
            flip: flip && self.horizontal_flip,
            crop,
            brightness,
            contrast,
            saturation,
            erased: is_erased
                .then(|| draw_rectangle(&mut random, size as usize))
                .flatten(),
        }
    }
}

fn between(random: &mut ChaCha8Rng, low: f64, high: f64) -> f64 {
    low + (high - low) * random.random::<f64>()
}

/// Draws a rectangle as torchvision's RandomErasing (Zhong et al., 2020, arXiv:1708.04896,
/// algorithm 1): 2 to 33 % of the area, sides in a ratio of 0.3 to 3.3.
fn draw_rectangle(random: &mut ChaCha8Rng, size: usize) -> Option<Rectangle> {
    const TRIES: usize = 10;
    for _ in 0..TRIES {
        let area = (size * size) as f64 * between(random, 0.02, 0.33);
        let ratio = between(random, 0.3_f64.ln(), 3.3_f64.ln()).exp();
        let height = (area * ratio).sqrt().round() as usize;
        let width = (area / ratio).sqrt().round() as usize;
        if height == 0 || width == 0 || height >= size || width >= size {
            continue;
        }
        return Some(Rectangle {
            left: random.random_range(0..=size - width),
            top: random.random_range(0..=size - height),
            width,
            height,
        });
    }
    None
}

/// Changes brightness, contrast and saturation, in this order, like torchvision's functions on
/// 8-bit images, then mirrors.
pub(super) fn recolour_and_flip(image: &mut RgbImage, transform: &Transform) {
    if transform.brightness != 1.0 {
        for sample in image.iter_mut() {
            *sample = blend(*sample, 0.0, transform.brightness);
        }
    }
    if transform.contrast != 1.0 {
        let greys = image.pixels().map(|pixel| u64::from(grey(pixel.0)));
        let pixels = u64::from(image.width()) * u64::from(image.height());
        let mean = (greys.sum::<u64>() as f64 / pixels.max(1) as f64) as f32;
        for sample in image.iter_mut() {
            *sample = blend(*sample, mean, transform.contrast);
        }
    }
    if transform.saturation != 1.0 {
        for pixel in image.pixels_mut() {
            let grey = f32::from(grey(pixel.0));
            pixel.0 = pixel
                .0
                .map(|sample| blend(sample, grey, transform.saturation));
        }
    }
    if transform.flip {
        image::imageops::flip_horizontal_in_place(image);
    }
}

/// Sets the rectangle of all three planes to 0.
pub(super) fn erase(out: &mut [f32], spec: &InputSpec, transform: &Transform) {
    let Some(rectangle) = transform.erased else {
        return;
    };
    let size = spec.size as usize;
    for plane in out.chunks_mut(size * size) {
        let rows = plane
            .chunks_mut(size)
            .skip(rectangle.top)
            .take(rectangle.height);
        for row in rows {
            row[rectangle.left..rectangle.left + rectangle.width].fill(0.0);
        }
    }
}

/// `factor · sample + (1 - factor) · other`, clamped to 0 to 255 and rounded down.
fn blend(sample: u8, other: f32, factor: f32) -> u8 {
    // A cast to u8 saturates and rounds toward zero.
    (factor * f32::from(sample) + (1.0 - factor) * other) as u8
}

/// Returns torchvision's grey value of a pixel, rounded down.
fn grey([red, green, blue]: [u8; 3]) -> u8 {
    (0.2989 * f32::from(red) + 0.587 * f32::from(green) + 0.114 * f32::from(blue)) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Augmentation = Augmentation {
        horizontal_flip: true,
        min_crop_area: 0.5,
        brightness: 0.4,
        contrast: 0.3,
        saturation: 0.2,
        erasing: 0.5,
    };

    #[test]
    fn draws_are_a_function_of_seed_epoch_and_position() {
        let drawn = ALL.draw(7, 3, 11, 224);
        assert_eq!(drawn, ALL.draw(7, 3, 11, 224));
        for other in [
            ALL.draw(8, 3, 11, 224),
            ALL.draw(7, 4, 11, 224),
            ALL.draw(7, 3, 12, 224),
        ] {
            assert_ne!(drawn, other);
        }
        assert_eq!(Augmentation::default().draw(7, 3, 11, 224), Transform::NONE);
    }

    #[test]
    fn draws_stay_within_their_ranges_and_reach_far_into_them() {
        let all: Vec<Transform> = (0..2_000).map(|n| ALL.draw(1, 1, n, 100)).collect();
        let share = |test: &dyn Fn(&Transform) -> bool| {
            all.iter().filter(|one| test(one)).count() as f64 / all.len() as f64
        };
        // Five standard deviations of a share of one half among 2,000.
        assert!((share(&|one| one.flip) - 0.5).abs() < 0.06);
        assert!((share(&|one| one.erased.is_some()) - 0.5).abs() < 0.06);
        let areas: Vec<f64> = all.iter().map(|one| one.crop.side.powi(2)).collect();
        assert!(
            areas
                .iter()
                .all(|area| (0.5 - 1e-9..=1.0 + 1e-9).contains(area))
        );
        assert!(areas.iter().any(|area| *area < 0.52) && areas.iter().any(|area| *area > 0.98));
        for one in &all {
            assert!(
                one.crop.left + one.crop.side <= 1.0 + 1e-9
                    && one.crop.top + one.crop.side <= 1.0 + 1e-9
            );
            assert!((0.6..=1.4).contains(&one.brightness));
            assert!((0.7..=1.3).contains(&one.contrast));
            assert!((0.8..=1.2).contains(&one.saturation));
            let Some(erased) = one.erased else { continue };
            assert!(
                erased.left + erased.width <= 100 && erased.top + erased.height <= 100,
                "{erased:?}"
            );
            let area = erased.width * erased.height;
            // Rounding both sides moves the area by up to half a row and half a column.
            assert!((150..=3_450).contains(&area), "{erased:?}");
        }
    }

    /// torchvision 0.26's adjust_brightness(1.3), adjust_contrast(0.6) and adjust_saturation(1.7),
    /// one after the other, on these four pixels.
    #[test]
    fn colours_are_those_of_torchvision() {
        let pixels = vec![10, 200, 30, 250, 128, 0, 77, 77, 77, 255, 255, 255];
        let mut image = RgbImage::from_raw(2, 2, pixels).unwrap();
        let transform = Transform {
            brightness: 1.3,
            contrast: 0.6,
            saturation: 1.7,
            ..Transform::NONE
        };
        recolour_and_flip(&mut image, &transform);
        assert_eq!(
            image.as_raw(),
            &include!("../../tests/fixtures/imaging/colours.in")
        );
    }

    #[test]
    fn flip_mirrors_rows_and_erasing_sets_a_rectangle_to_the_mean() {
        let pixels = vec![1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4];
        let mut image = RgbImage::from_raw(2, 2, pixels).unwrap();
        let transform = Transform {
            flip: true,
            erased: Some(Rectangle {
                left: 1,
                top: 0,
                width: 1,
                height: 2,
            }),
            ..Transform::NONE
        };
        recolour_and_flip(&mut image, &transform);
        assert_eq!(image.as_raw(), &[2, 2, 2, 1, 1, 1, 4, 4, 4, 3, 3, 3]);
        let spec = InputSpec {
            size: 2,
            ..InputSpec::default()
        };
        let mut out = vec![5.0; 12];
        erase(&mut out, &spec, &transform);
        assert_eq!(out, [5.0, 0.0, 5.0, 0.0].repeat(3));
    }
}
