//! Conversion of RGB pixels to the input of the network.

use fast_image_resize::{
    FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer,
    images::{Image, ImageRef},
};
use image::RgbImage;
use serde::{Deserialize, Serialize};

use super::{
    Error, Limits,
    augment::{self, Crop, Transform},
    decode,
};

/// Longest accepted side of the input in pixels.
pub(crate) const MAX_INPUT_SIZE: u32 = 1024;

/// Input format of a network. It is stored with each checkpoint, and a model always uses its own.
///
/// An unknown field is refused, because it would be a step that this version does not implement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputSpec {
    /// Width and height of the input in pixels. Default 224.
    pub size: u32,
    /// Mean of red, green and blue on the scale 0 to 1. Default: ImageNet's.
    pub mean: [f32; 3],
    /// Standard deviation of red, green and blue on the scale 0 to 1. Default: ImageNet's.
    pub std: [f32; 3],
    /// Conversion of another shape to a square.
    #[serde(default)]
    pub fit: Fit,
    /// Filter of the resizing.
    #[serde(default)]
    pub filter: ResizeFilter,
}

/// Conversion of an image to a square. A single variant, because it is serialized.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fit {
    /// Resizes the whole image to the square, without preserving its aspect ratio and without
    /// cropping.
    #[default]
    Stretch,
}

/// Filter of the resizing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResizeFilter {
    /// A triangle whose width grows with the reduction, as in Pillow, and in torchvision with
    /// `antialias=True`.
    #[default]
    BilinearAntialiased,
}

impl Default for InputSpec {
    fn default() -> Self {
        Self {
            size: 224,
            mean: [0.485, 0.456, 0.406],
            std: [0.229, 0.224, 0.225],
            fit: Fit::Stretch,
            filter: ResizeFilter::BilinearAntialiased,
        }
    }
}

impl InputSpec {
    /// Number of values of one image: three planes of `size` × `size`.
    #[must_use]
    pub fn values(&self) -> usize {
        3 * self.size as usize * self.size as usize
    }

    /// Validates the values. Called once, where a specification enters the program.
    ///
    /// # Errors
    /// [`Error::InputSpec`] with the field, its value and the rule.
    pub fn validate(&self) -> Result<(), Error> {
        if !(1..=MAX_INPUT_SIZE).contains(&self.size) {
            return Err(Error::InputSpec {
                reason: format!("size is {}, not 1 to {MAX_INPUT_SIZE}", self.size),
            });
        }
        if !self.mean.iter().all(|mean| mean.is_finite()) {
            return Err(Error::InputSpec {
                reason: format!("mean is {:?}, not three finite numbers", self.mean),
            });
        }
        if !self.std.iter().all(|std| std.is_normal() && *std > 0.0) {
            return Err(Error::InputSpec {
                reason: format!("std is {:?}, not three numbers above 0", self.std),
            });
        }
        Ok(())
    }
}

/// Prepares images one after another and keeps the memory of the resizing. Each thread has one.
pub struct Preprocessor {
    resizer: Resizer,
}

impl std::fmt::Debug for Preprocessor {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Preprocessor")
            .finish_non_exhaustive()
    }
}

impl Default for Preprocessor {
    fn default() -> Self {
        Self::new()
    }
}

impl Preprocessor {
    /// Starts without memory, which grows with the largest image.
    #[must_use]
    pub fn new() -> Self {
        Self {
            resizer: Resizer::new(),
        }
    }

    /// Decodes, resizes and normalizes an encoded image into `out`, as planes `[3, size, size]` of
    /// f32.
    ///
    /// # Errors
    /// As [`decode`]; `out` is unchanged then.
    ///
    /// # Panics
    /// If `out` does not have [`InputSpec::values`] elements.
    pub fn preprocess(
        &mut self,
        bytes: &[u8],
        limits: &Limits,
        spec: &InputSpec,
        out: &mut [f32],
    ) -> Result<(), Error> {
        self.preprocess_changed(bytes, limits, spec, &Transform::NONE, out)
    }

    /// As [`Preprocessor::preprocess`], with a random change.
    ///
    /// # Errors
    /// As [`decode`]; `out` is unchanged then.
    ///
    /// # Panics
    /// If `out` does not have [`InputSpec::values`] elements.
    pub fn preprocess_changed(
        &mut self,
        bytes: &[u8],
        limits: &Limits,
        spec: &InputSpec,
        transform: &Transform,
        out: &mut [f32],
    ) -> Result<(), Error> {
        let image = decode(bytes, limits)?;
        let mut resized = self.resize_part(image, transform.crop, spec.size);
        augment::recolour_and_flip(&mut resized, transform);
        normalise_into(&resized, spec, out);
        augment::erase(out, spec, transform);
        Ok(())
    }

    /// Resizes the whole image to `size` × `size` pixels by an antialiased bilinear filter.
    ///
    /// The result follows Pillow's `resize((size, size), BILINEAR)`. Each of the two passes may
    /// round a tie by one 8-bit level differently, so differences of up to two levels are possible:
    /// of 80 million samples of UTKFace (400 images to 224, 112 and 64 pixels) 99.87 % were equal,
    /// and two differed by two levels. An image that already has the size is returned unchanged.
    ///
    /// # Panics
    /// If `size` or a side of the image is 0, which [`decode`] and a valid [`InputSpec`] exclude.
    #[must_use]
    pub fn resize(&mut self, image: RgbImage, size: u32) -> RgbImage {
        self.resize_part(image, Crop::WHOLE, size)
    }

    fn resize_part(&mut self, image: RgbImage, part: Crop, size: u32) -> RgbImage {
        let (width, height) = image.dimensions();
        assert!(
            size > 0 && width > 0 && height > 0,
            "resizing {width}x{height} pixels to {size}x{size}: a side must not be 0"
        );
        if (width, height) == (size, size) && part == Crop::WHOLE {
            return image;
        }
        let source = ImageRef::new(width, height, image.as_raw(), PixelType::U8x3)
            .expect("an RgbImage has three bytes for each pixel");
        let options = ResizeOptions::new()
            .resize_alg(ResizeAlg::Convolution(FilterType::Bilinear))
            .use_alpha(false);
        // Pillow resizes the width first and rounds to 8 bits in between; the library would start
        // with the height, and forty times as many samples would differ by a level.
        let mut narrow = Image::new(size, height, PixelType::U8x3);
        let mut target = Image::new(size, size, PixelType::U8x3);
        let (left, columns) = pixels_of(part.left, part.side, width);
        let (top, rows) = pixels_of(part.top, part.side, height);
        let columns = options.crop(left, 0.0, columns, f64::from(height));
        let rows = options.crop(0.0, top, f64::from(size), rows);
        self.resizer
            .resize(&source, &mut narrow, &columns)
            .and_then(|()| self.resizer.resize(&narrow, &mut target, &rows))
            .expect("all have the same pixel type, and the part lies inside of the source");
        RgbImage::from_raw(size, size, target.into_vec())
            .expect("the target has three bytes for each pixel")
    }
}

/// Returns start and length in pixels of a part of a side; rounding does not extend it past the
/// end.
fn pixels_of(begin: f64, share: f64, side: u32) -> (f64, f64) {
    let side = f64::from(side);
    let begin = begin * side;
    (begin, (share * side).min(side - begin))
}

/// Writes an image of the specified size as planes of red, green and blue:
/// `out[c][y][x] = (v / 255 - mean[c]) / std[c]`.
///
/// # Panics
/// If the image is not `size` × `size` pixels or `out` does not have [`InputSpec::values`]
/// elements.
pub(crate) fn normalise_into(image: &RgbImage, spec: &InputSpec, out: &mut [f32]) {
    assert_eq!(
        image.dimensions(),
        (spec.size, spec.size),
        "the image must have the size of the input"
    );
    assert_eq!(
        out.len(),
        spec.values(),
        "the output must hold three planes of {0}x{0} numbers",
        spec.size
    );
    let area = out.len() / 3;
    let (red, rest) = out.split_at_mut(area);
    let (green, blue) = rest.split_at_mut(area);
    // Each channel has only 256 values, so a table is faster and exactly equal to the formula.
    let [red_of, green_of, blue_of] =
        [0, 1, 2].map(|channel| levels(spec.mean[channel], spec.std[channel]));
    let (pixels, _) = image.as_raw().as_chunks::<3>();
    for (index, [r, g, b]) in pixels.iter().enumerate() {
        red[index] = red_of[usize::from(*r)];
        green[index] = green_of[usize::from(*g)];
        blue[index] = blue_of[usize::from(*b)];
    }
}

/// Returns the normalized values of the 256 levels of a channel.
fn levels(mean: f32, std: f32) -> [f32; 256] {
    std::array::from_fn(|level| (level as f32 / 255.0 - mean) / std)
}
