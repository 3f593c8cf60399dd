//! From the bytes of an image to the numbers a network reads: bytes → upright RGB → resized → normalised.
//!
//! This is the one preprocessing of the product. Training, evaluation and prediction all call it, so a model never
//! meets an image prepared in another way than the ones it learned from. The steps follow what Pillow and
//! torchvision do, because that is how the reference training prepares its images:
//!
//! 1. [`decode`]: JPEG, PNG, WebP or BMP, known by content and never by name. The limits are checked on the header,
//!    before a pixel is decoded. The EXIF orientation is applied, alpha is dropped, grey becomes RGB, 16 bits become 8.
//!    A file that ends before its image does is an error and not an image with a grey lower half.
//! 2. [`Preprocessor::resize`]: the whole image to a square, without keeping its aspect, by an antialiased bilinear filter.
//! 3. [`normalise_into`]: planes of red, green and blue, `(v / 255 - mean) / std`.
//!
//! Training may change an image on this way at random ([`augment`]).
//!
//! Nothing here knows about tensors, files or threads; a thread that prepares many images keeps one [`Preprocessor`].

/// Raised whenever a decoder gives other pixels for the same file. Checkpoints record it: 1 decoded JPEG with zune-jpeg, 2 does
/// so with libjpeg-turbo. Caches of features and of answers need not: both end with the process that filled them.
pub const DECODER_REVISION: u32 = 2;

pub mod augment;
mod decode;
mod error;
mod formats;
mod input;
mod jpeg;
mod orientation;
#[cfg(test)]
mod tests;
mod webp;

pub use self::decode::{Header, Limits, decode, inspect};
pub use self::error::Error;
pub use self::input::{
    Fit, InputSpec, MAX_INPUT_SIZE, Preprocessor, ResizeFilter, normalise_into, preprocess, resize,
};
