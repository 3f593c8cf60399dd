//! Decoding to upright RGB pixels, within limits.

use std::{
    io::Cursor,
    panic::{AssertUnwindSafe, catch_unwind},
};

use image::{
    ColorType, DynamicImage, ImageDecoder, ImageFormat, ImageReader, RgbImage,
    metadata::Orientation,
};

use super::{
    Error, deep_png, formats, jpeg,
    memory::{self, Reservation},
    orientation, webp,
};

/// Bytes per pixel of the result.
const RGB_BYTES: u64 = 3;
/// Memory of the PNG decoder in addition to the pixels.
const PNG_MEMORY: u64 = 16 * 1024 * 1024;

/// Limits of an image, checked on its header before any pixel is decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest encoded size in bytes. Default 16 MiB.
    pub max_bytes: u64,
    /// Largest number of pixels, width times height. Default 50,000,000.
    pub max_pixels: u64,
    /// Longest side in pixels. Default 16,384.
    pub max_dimension: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_bytes: 16 * 1024 * 1024,
            max_pixels: 50_000_000,
            max_dimension: 16_384,
        }
    }
}

impl Limits {
    /// Refuses an empty or too large file, for callers that know the size before they have the
    /// bytes.
    ///
    /// # Errors
    /// [`Error::Empty`] and [`Error::TooLarge`].
    pub fn check_bytes(&self, bytes: u64) -> Result<(), Error> {
        if bytes == 0 {
            return Err(Error::Empty);
        }
        if bytes > self.max_bytes {
            return Err(Error::TooLarge {
                bytes,
                limit: self.max_bytes,
            });
        }
        Ok(())
    }

    pub(super) fn check_dimensions(&self, width: u32, height: u32) -> Result<(), Error> {
        let side_is_fine = |side: u32| (1..=self.max_dimension).contains(&side);
        let pixels = u64::from(width) * u64::from(height);
        if side_is_fine(width) && side_is_fine(height) && pixels <= self.max_pixels {
            return Ok(());
        }
        Err(Error::Dimensions {
            width,
            height,
            max_dimension: self.max_dimension,
            max_pixels: self.max_pixels,
        })
    }

    /// Memory limit of a decoder: the widest accepted pixel has 8 bytes, and a decoder needs
    /// additional memory.
    pub(super) fn decoder_memory(&self) -> u64 {
        self.max_pixels
            .saturating_mul(8)
            .saturating_add(64 * 1024 * 1024)
    }
}

/// Header of an image, before its orientation is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// `JPEG`, `PNG`, `WebP` or `BMP`.
    pub format: &'static str,
    /// Stored width in pixels.
    pub width: u32,
    /// Stored height in pixels.
    pub height: u32,
}

/// Checks an image without producing pixels: the format, the dimensions and the limits; of a JPEG
/// also that no image data is missing or damaged.
///
/// A PNG, WebP or BMP that passes can still be corrupt in [`decode`].
///
/// # Errors
/// Every variant of [`Error`] except [`Error::InputSpec`].
pub fn inspect(bytes: &[u8], limits: &Limits) -> Result<Header, Error> {
    let format = recognise(bytes, limits)?;
    guarded(format, || {
        let (width, height) = if format == ImageFormat::Jpeg {
            let decoder = jpeg::Decoder::open(bytes, limits)?;
            let dimensions = decoder.dimensions();
            decoder.verify()?;
            dimensions
        } else {
            open(bytes, format, limits)?.dimensions()
        };
        Ok(Header {
            format: name(format),
            width,
            height,
        })
    })
}

/// Decodes a JPEG, PNG, WebP or BMP image into upright RGB pixels of 8 bits.
///
/// - The content decides the format.
/// - The EXIF orientation is applied; an unreadable one counts as upright.
/// - Alpha is dropped, not blended with a background, as in Pillow's `convert("RGB")`.
/// - 16-bit samples keep their upper 8 bits. Grey, palette and CMYK images become RGB. The first
///   frame of an animation is used, at its position on the canvas. Colour profiles (ICC) are not
///   applied, as in torchvision.
///
/// # Errors
/// Every variant of [`Error`] except [`Error::InputSpec`]. A decoder that panics on hostile bytes
/// is [`Error::Corrupt`] too.
pub fn decode(bytes: &[u8], limits: &Limits) -> Result<RgbImage, Error> {
    decode_reserved(bytes, limits).map(|(image, _memory)| image)
}

/// As [`decode`], with the memory of the image, which the caller keeps as long as the image.
///
/// # Errors
/// As [`decode`].
pub(crate) fn decode_reserved(
    bytes: &[u8],
    limits: &Limits,
) -> Result<(RgbImage, Reservation), Error> {
    let format = recognise(bytes, limits)?;
    guarded(format, || {
        let (image, orientation, memory) = if format == ImageFormat::Jpeg {
            let decoder = jpeg::Decoder::open(bytes, limits)?;
            let memory = reserve(decoder.dimensions(), RGB_BYTES);
            let orientation = decoder.exif().map(orientation::of_exif);
            (into_rgb(decoder.decode()?), orientation, memory)
        } else {
            let content = if format == ImageFormat::WebP {
                webp::without_blending(bytes)
            } else {
                bytes.into()
            };
            let decoder = open(&content, format, limits)?;
            let orientation = if format == ImageFormat::Png {
                Some(orientation::of_png(bytes))
            } else if format == ImageFormat::WebP {
                Some(orientation::of_webp(bytes))
            } else {
                None
            };
            if format == ImageFormat::Png && deep_png::is_deep(bytes) {
                let memory = reserve(decoder.dimensions(), RGB_BYTES);
                drop(decoder);
                let image = deep_png::decode(bytes, PNG_MEMORY as usize).map_err(|reason| {
                    Error::Corrupt {
                        format: name(format),
                        reason,
                    }
                })?;
                (image, orientation, memory)
            } else {
                let pixel = u64::from(decoder.color_type().bytes_per_pixel());
                let memory = reserve(decoder.dimensions(), pixel);
                let image =
                    DynamicImage::from_decoder(decoder).map_err(|error| corrupt(format, &error))?;
                (into_rgb(image), orientation, memory)
            }
        };
        let mut upright = DynamicImage::ImageRgb8(image);
        upright.apply_orientation(orientation.unwrap_or(Orientation::NoTransforms));
        Ok((upright.into_rgb8(), memory))
    })
}

/// Reserves the memory of an image while it is decoded, turned upright and resized.
fn reserve((width, height): (u32, u32), pixel_bytes: u64) -> Reservation {
    let pixels = u64::from(width) * u64::from(height);
    memory::reserve(pixels * (pixel_bytes + RGB_BYTES))
}

/// Checks the size and returns the format of the content.
fn recognise(bytes: &[u8], limits: &Limits) -> Result<ImageFormat, Error> {
    limits.check_bytes(bytes.len() as u64)?;
    let format = image::guess_format(bytes).ok().filter(|format| {
        matches!(
            format,
            ImageFormat::Jpeg | ImageFormat::Png | ImageFormat::WebP | ImageFormat::Bmp
        )
    });
    let Some(format) = format else {
        return Err(Error::UnsupportedFormat {
            found: formats::describe(bytes),
        });
    };
    // Xcode writes PNG files that standard decoders do not read, marked by a chunk before the
    // header.
    if format == ImageFormat::Png && bytes.get(12..16) == Some(b"CgBI") {
        return Err(Error::UnsupportedFormat {
            found: "a PNG image in Apple's own variant (CgBI)".to_owned(),
        });
    }
    Ok(format)
}

/// Returns a decoder of a PNG, WebP or BMP that has read the header, after checking the dimensions.
fn open<'a>(
    bytes: &'a [u8],
    format: ImageFormat,
    limits: &Limits,
) -> Result<impl ImageDecoder + 'a, Error> {
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    // The sides are checked below, where the message can name them.
    let mut decoder_limits = image::Limits::no_limits();
    // The PNG decoder reads row by row; other data that it unpacks, such as a colour profile, are
    // not needed.
    decoder_limits.max_alloc = Some(if format == ImageFormat::Png {
        PNG_MEMORY
    } else {
        limits.decoder_memory()
    });
    reader.limits(decoder_limits);
    let decoder = reader
        .into_decoder()
        .map_err(|error| corrupt(format, &error))?;
    let (width, height) = decoder.dimensions();
    limits.check_dimensions(width, height)?;
    Ok(decoder)
}

/// Runs a third-party decoder so that a panic loses one image and not the thread.
fn guarded<T>(format: ImageFormat, decode: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    // The closure creates or only reads everything that it uses, so a panic leaves nothing half
    // changed.
    catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(|_| {
        Err(Error::Corrupt {
            format: name(format),
            reason: "the decoder failed on malformed content".to_owned(),
        })
    })
}

/// Drops alpha in place, and turns grey into RGB. The library's conversion would need the memory of
/// both images.
fn into_rgb(image: DynamicImage) -> RgbImage {
    let (width, height) = (image.width(), image.height());
    let samples = match image.color() {
        ColorType::Rgba8 => without_alpha(image.into_bytes()),
        ColorType::L8 => grey_to_rgb(image.as_bytes(), 1),
        ColorType::La8 => grey_to_rgb(image.as_bytes(), 2),
        // The decoders above yield 8 bits.
        ColorType::Rgb8
        | ColorType::L16
        | ColorType::La16
        | ColorType::Rgb16
        | ColorType::Rgba16
        | ColorType::Rgb32F
        | ColorType::Rgba32F
        | _ => return image.into_rgb8(),
    };
    RgbImage::from_raw(width, height, samples)
        .expect("three samples were written for each pixel of the image")
}

fn without_alpha(mut samples: Vec<u8>) -> Vec<u8> {
    let pixels = samples.len() / 4;
    for pixel in 0..pixels {
        samples.copy_within(4 * pixel..4 * pixel + 3, 3 * pixel);
    }
    samples.truncate(3 * pixels);
    samples
}

fn grey_to_rgb(samples: &[u8], channels: usize) -> Vec<u8> {
    let mut rgb = Vec::with_capacity(samples.len() / channels * 3);
    for grey in samples.iter().step_by(channels) {
        rgb.extend([*grey; 3]);
    }
    rgb
}

fn corrupt(format: ImageFormat, error: &image::ImageError) -> Error {
    Error::Corrupt {
        format: name(format),
        reason: error.to_string(),
    }
}

fn name(format: ImageFormat) -> &'static str {
    if format == ImageFormat::Jpeg {
        "JPEG"
    } else if format == ImageFormat::Png {
        "PNG"
    } else if format == ImageFormat::WebP {
        "WebP"
    } else {
        "BMP"
    }
}
