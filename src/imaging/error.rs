//! Why an image cannot be used.

/// What is wrong with an image, or with the description of a network's input.
///
/// All but [`Error::InputSpec`] are the sender's to mend. The messages name what was found and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No bytes at all.
    #[error("the image is empty (0 bytes)")]
    Empty,
    /// The encoded file is larger than allowed.
    #[error("the image has {bytes} bytes and the limit is {limit}")]
    TooLarge {
        /// Size of the encoded image in bytes.
        bytes: u64,
        /// The largest allowed size in bytes.
        limit: u64,
    },
    /// The content is not one of the formats we read.
    #[error("the content is {found}; send a JPEG, PNG, WebP or BMP image")]
    UnsupportedFormat {
        /// What the content looks like, for example `a GIF image`.
        found: String,
    },
    /// The header announces more pixels than allowed, or none.
    #[error(
        "the image is {width}x{height} pixels; each side must be 1 to {max_dimension} and the product at most {max_pixels}"
    )]
    Dimensions {
        /// Announced width in pixels.
        width: u32,
        /// Announced height in pixels.
        height: u32,
        /// The longest allowed side in pixels.
        max_dimension: u32,
        /// The largest allowed number of pixels.
        max_pixels: u64,
    },
    /// The format is one of ours and the content breaks its rules, or ends too early.
    #[error("the {format} image cannot be decoded: {reason}")]
    Corrupt {
        /// Name of the format, for example `JPEG`.
        format: &'static str,
        /// What the decoder says.
        reason: String,
    },
    /// The description of a network's input makes no sense.
    #[error("the input specification is not usable: {reason}")]
    InputSpec {
        /// Which field, what it holds and what it may hold.
        reason: String,
    },
}
