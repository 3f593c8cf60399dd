//! PNG images of 16 bits per sample, reduced to 8 bits row by row: all samples of a large image at
//! once would take several times the memory of the result.

use std::io::Cursor;

use image::RgbImage;
use png::{BitDepth, Decoder, DecodingError, Limits, Transformations};

/// Returns true for a PNG whose header has 16 bits per sample.
pub(super) fn is_deep(png: &[u8]) -> bool {
    // Signature (8), length and name of the header chunk (8), width, height (8), bit depth.
    const BIT_DEPTH: usize = 24;
    png.get(BIT_DEPTH) == Some(&16)
}

/// Decodes a PNG whose dimensions were checked. `memory` limits the decoder's own buffers.
///
/// The upper byte of each sample is kept, grey becomes RGB, and alpha is dropped.
pub(super) fn decode(png: &[u8], memory: usize) -> Result<RgbImage, String> {
    read(png, memory).map_err(|error| error.to_string())
}

fn read(png: &[u8], memory: usize) -> Result<RgbImage, DecodingError> {
    let mut decoder = Decoder::new_with_limits(Cursor::new(png), Limits { bytes: memory });
    decoder.set_transformations(Transformations::EXPAND | Transformations::STRIP_16);
    let mut reader = decoder.read_info()?;
    let (color, depth) = reader.output_color_type();
    debug_assert_eq!(depth, BitDepth::Eight, "STRIP_16 yields 8 bits");
    let channels = color.samples();
    let (width, height) = reader.info().size();
    let is_interlaced = reader.info().interlaced;
    let mut rgb = Vec::with_capacity(width as usize * height as usize * 3);
    if is_interlaced {
        // Its rows are not in order.
        let size = reader
            .output_buffer_size()
            .ok_or(DecodingError::LimitsExceeded)?;
        let mut samples = vec![0; size];
        reader.next_frame(&mut samples)?;
        append(&mut rgb, &samples, channels);
    } else {
        while let Some(row) = reader.next_row()? {
            append(&mut rgb, row.data(), channels);
        }
    }
    // A file that ends early is an error of the decoder, so all rows are there.
    RgbImage::from_raw(width, height, rgb).ok_or(DecodingError::LimitsExceeded)
}

/// Appends pixels of one (grey), two (grey, alpha), three or four (RGB, alpha) channels as RGB.
fn append(rgb: &mut Vec<u8>, samples: &[u8], channels: usize) {
    for pixel in samples.chunks_exact(channels) {
        match *pixel {
            [grey] | [grey, _] => rgb.extend([grey; 3]),
            [red, green, blue, ..] => rgb.extend([red, green, blue]),
            [] => {}
        }
    }
}
