//! Errors of images.

/// An unusable image or input specification. Only [`Error::InputSpec`] is not the fault of the
/// sender.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("the image is empty (0 bytes)")]
    Empty,
    #[error("the image has {bytes} bytes and the limit is {limit}")]
    TooLarge { bytes: u64, limit: u64 },
    #[error("the content is {found}; send a JPEG, PNG, WebP or BMP image")]
    UnsupportedFormat {
        /// For example `a GIF image`.
        found: String,
    },
    #[error(
        "the image is {width}x{height} pixels; each side must be 1 to {max_dimension} and the product at most {max_pixels}"
    )]
    Dimensions {
        width: u32,
        height: u32,
        max_dimension: u32,
        max_pixels: u64,
    },
    #[error("the {format} image cannot be decoded: {reason}")]
    Corrupt {
        /// For example `JPEG`.
        format: &'static str,
        reason: String,
    },
    #[error("the input specification is not usable: {reason}")]
    InputSpec { reason: String },
}
