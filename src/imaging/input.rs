//! From RGB pixels to the numbers a network reads.

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use image::RgbImage;
use serde::{Deserialize, Serialize};

use super::{
    Error, Limits,
    augment::{self, Crop, Transform},
    decode,
};

/// The longest side of a network's input that we accept, in pixels.
pub const MAX_INPUT_SIZE: u32 = 1024;

/// How a network wants its images. It is stored with each checkpoint, and a model is only ever fed by its own.
///
/// An unknown field is refused when reading: it would be a step that this version cannot do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputSpec {
    /// Width and height of the input in pixels. Default 224.
    pub size: u32,
    /// Mean of red, green and blue on the scale 0 to 1. Default: ImageNet's.
    pub mean: [f32; 3],
    /// Standard deviation of red, green and blue on the scale 0 to 1. Default: ImageNet's.
    pub std: [f32; 3],
    /// How an image of another shape becomes a square.
    #[serde(default)]
    pub fit: Fit,
    /// How pixels are averaged when the size changes.
    #[serde(default)]
    pub filter: ResizeFilter,
}

/// How an image that is not square becomes one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fit {
    /// The whole image is resized to the square; its aspect is not kept and nothing is cut off.
    #[default]
    Stretch,
}

/// How pixels are averaged when the size changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResizeFilter {
    /// A triangle whose width grows with the reduction, as in Pillow and in torchvision with `antialias=True`.
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
    /// How many numbers one image becomes: three planes of `size` × `size`.
    #[must_use]
    pub fn values(&self) -> usize {
        3 * self.size as usize * self.size as usize
    }

    /// Checks that the numbers can be used. Called once, where a specification enters the program.
    ///
    /// # Errors
    /// [`Error::InputSpec`] naming the field, what it holds and what it may hold.
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

/// Prepares images one after another and keeps the working memory of the resizing between them. One for each thread.
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
    /// Without working memory yet; it grows to what the largest image needs.
    #[must_use]
    pub fn new() -> Self {
        Self {
            resizer: Resizer::new(),
        }
    }

    /// Decodes, resizes and normalises one encoded image into `out`, as planes `[3, size, size]` of f32.
    ///
    /// # Errors
    /// Those of [`decode`]; `out` is then as it was.
    ///
    /// # Panics
    /// Where `out` does not hold [`InputSpec::values`] numbers.
    pub fn preprocess(
        &mut self,
        bytes: &[u8],
        limits: &Limits,
        spec: &InputSpec,
        out: &mut [f32],
    ) -> Result<(), Error> {
        self.preprocess_changed(bytes, limits, spec, &Transform::NONE, out)
    }

    /// The same with a random change.
    ///
    /// # Errors
    /// Those of [`decode`]; `out` is then as it was.
    ///
    /// # Panics
    /// Where `out` does not hold [`InputSpec::values`] numbers.
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
    /// The result follows Pillow's `resize((size, size), BILINEAR)`. Each of the two passes may round a sample by one 8-bit
    /// level differently where it lies halfway, so two levels are possible where both passes meet such a tie: of 80 million
    /// samples of UTKFace (400 images to 224, 112 and 64 pixels) 99.87 % were equal, and two differed by two levels. An image
    /// that already has the size is handed back untouched.
    ///
    /// # Panics
    /// Where `size` or a side of the image is 0, which neither [`decode`] nor a valid [`InputSpec`] lets through.
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
        // Pillow resizes the width first and rounds to 8 bits in between; the library alone would begin with the height,
        // and forty times as many samples would then differ by a level.
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

/// Begin and length in pixels of a part of a side; rounding does not take it past the end.
fn pixels_of(begin: f64, share: f64, side: u32) -> (f64, f64) {
    let side = f64::from(side);
    let begin = begin * side;
    (begin, (share * side).min(side - begin))
}

/// Decodes, resizes and normalises one image; see [`Preprocessor::preprocess`], which is the one for many images.
///
/// # Errors
/// Those of [`decode`]; `out` is then as it was.
///
/// # Panics
/// Where `out` does not hold [`InputSpec::values`] numbers.
pub fn preprocess(
    bytes: &[u8],
    limits: &Limits,
    spec: &InputSpec,
    out: &mut [f32],
) -> Result<(), Error> {
    Preprocessor::new().preprocess(bytes, limits, spec, out)
}

/// Resizes one image; see [`Preprocessor::resize`], which is the one for many images.
#[must_use]
pub fn resize(image: &RgbImage, size: u32) -> RgbImage {
    Preprocessor::new().resize(image.clone(), size)
}

/// Writes an image of the specified size as planes of red, green and blue: `out[c][y][x] = (v / 255 - mean[c]) / std[c]`.
///
/// # Panics
/// Where the image is not `size` × `size` pixels or `out` does not hold [`InputSpec::values`] numbers.
pub fn normalise_into(image: &RgbImage, spec: &InputSpec, out: &mut [f32]) {
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
    // There are only 256 values for each channel, so a table is both faster and exact to the formula.
    let [red_of, green_of, blue_of] =
        [0, 1, 2].map(|channel| levels(spec.mean[channel], spec.std[channel]));
    let (pixels, _) = image.as_raw().as_chunks::<3>();
    for (index, [r, g, b]) in pixels.iter().enumerate() {
        red[index] = red_of[usize::from(*r)];
        green[index] = green_of[usize::from(*g)];
        blue[index] = blue_of[usize::from(*b)];
    }
}

/// What each of the 256 levels of a channel becomes.
fn levels(mean: f32, std: f32) -> [f32; 256] {
    std::array::from_fn(|level| (level as f32 / 255.0 - mean) / std)
}
