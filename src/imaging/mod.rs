//! Image preprocessing: encoded bytes → upright RGB → resized → normalized input of the network.
//!
//! This is the only preprocessing of the product. Training, evaluation and prediction use it, so a
//! model never receives an image that was prepared differently from its training images. The steps
//! follow Pillow and torchvision, which prepare the images of the reference training:
//!
//! 1. [`decode`]: JPEG, PNG, WebP or BMP, detected by content. The limits are checked on the
//!    header, before a pixel is decoded. The EXIF orientation is applied, alpha is dropped, grey
//!    becomes RGB, 16 bits become 8. A truncated file is an error.
//! 2. [`Preprocessor::resize`]: the whole image to a square, without preserving its aspect ratio,
//!    by an antialiased bilinear filter.
//! 3. [`normalise_into`]: planes of red, green and blue, `(v / 255 - mean) / std`.
//!
//! Training may change an image at random in between ([`augment`]).
//!
//! Large images wait for memory (`memory`). This module does not depend on tensors or files. A
//! thread that prepares many images keeps one [`Preprocessor`].

/// Incremented whenever a decoder returns other pixels for the same file. Checkpoints record it: 1
/// decoded JPEG with zune-jpeg, 2 with libjpeg-turbo. Caches of features and responses do not need
/// it, because they end with their process.
pub(crate) const DECODER_REVISION: u32 = 2;

pub(crate) mod augment;
mod decode;
mod deep_png;
mod error;
mod formats;
mod input;
mod jpeg;
mod memory;
mod orientation;
#[cfg(test)]
mod tests;
mod webp;

pub(crate) use self::{
    decode::decode_reserved,
    error::Error,
    input::{InputSpec, normalise_into},
    memory::Reservation,
};
pub use self::{
    decode::{Limits, decode, inspect},
    input::Preprocessor,
};
