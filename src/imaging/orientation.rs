//! EXIF orientation of an image, in the places and forms in which tools write it.
//!
//! Only one number of the EXIF data is needed, so it is read here, in time proportional to the
//! first directory. The EXIF crates parse every directory, and overlapping nested directories make
//! that quadratic in the size of the file: 64 kB from an untrusted client would need gigabytes.

use std::{borrow::Cow, io::Read};

use flate2::read::ZlibDecoder;
use image::metadata::Orientation;

use super::webp;

/// Prefix of the TIFF header in JPEG; some tools also write it in PNG and WebP files.
const JPEG_PREFIX: &[u8] = b"Exif\0\0";
/// Keywords of the PNG text chunks in which ImageMagick stores EXIF data, as hexadecimal digits.
const RAW_PROFILES: [&[u8]; 2] = [b"Raw profile type exif", b"Raw profile type APP1"];
/// The tag of the orientation (TIFF 6.0, section 8).
const ORIENTATION_TAG: u16 = 0x0112;
/// Largest EXIF data in a compressed PNG text chunk, in bytes, as hexadecimal digits.
const MAX_TEXT: u64 = 1 << 20;

/// Returns the orientation in EXIF data; upright if it is missing or not 1 to 8.
///
/// `data` starts with a TIFF header, or with the prefix of JPEG before it.
pub(super) fn of_exif(data: &[u8]) -> Orientation {
    first_directory(data)
        .and_then(|value| u8::try_from(value).ok())
        .and_then(Orientation::from_exif)
        .unwrap_or(Orientation::NoTransforms)
}

/// Returns the orientation in the first directory, which describes the image; that of a thumbnail
/// follows.
fn first_directory(data: &[u8]) -> Option<u32> {
    let data = data.strip_prefix(JPEG_PREFIX).unwrap_or(data);
    let order = match data.get(..4)? {
        b"II*\0" => Order::Little,
        b"MM\0*" => Order::Big,
        _ => return None,
    };
    let start = order.u32(data, 4)? as usize;
    let count = usize::from(order.u16(data, start)?);
    let entries = (0..count).map(|index| start + 2 + 12 * index);
    for entry in entries {
        if order.u16(data, entry)? != ORIENTATION_TAG {
            continue;
        }
        // SHORT by the standard; BYTE and LONG occur too. The value is at the start of its four
        // bytes.
        return match order.u16(data, entry + 2)? {
            1 => data.get(entry + 8).copied().map(u32::from),
            3 => order.u16(data, entry + 8).map(u32::from),
            4 => order.u32(data, entry + 8),
            _ => None,
        };
    }
    None
}

#[derive(Clone, Copy)]
enum Order {
    Little,
    Big,
}

impl Order {
    fn u16(self, data: &[u8], at: usize) -> Option<u16> {
        let bytes = data.get(at..)?.first_chunk()?;
        Some(match self {
            Order::Little => u16::from_le_bytes(*bytes),
            Order::Big => u16::from_be_bytes(*bytes),
        })
    }

    fn u32(self, data: &[u8], at: usize) -> Option<u32> {
        let bytes = data.get(at..)?.first_chunk()?;
        Some(match self {
            Order::Little => u32::from_le_bytes(*bytes),
            Order::Big => u32::from_be_bytes(*bytes),
        })
    }
}

/// Returns the orientation of a PNG from its `eXIf` chunk, otherwise from ImageMagick's text chunk,
/// before or after the pixels.
pub(super) fn of_png(bytes: &[u8]) -> Orientation {
    if let Some((_, exif)) = png_chunks(bytes).find(|(kind, _)| kind == b"eXIf") {
        return of_exif(exif);
    }
    png_chunks(bytes)
        .find_map(|(kind, body)| raw_profile(&kind, body))
        .map_or(Orientation::NoTransforms, |exif| of_exif(&exif))
}

/// Returns the orientation of a WebP from its `EXIF` chunk.
pub(super) fn of_webp(bytes: &[u8]) -> Orientation {
    webp::chunks(bytes)
        .find(|(kind, _)| kind == b"EXIF")
        .map_or(Orientation::NoTransforms, |(_, content)| {
            of_exif(&bytes[content])
        })
}

/// Iterates over the kind and the content of each chunk. The decoder verifies the checksums.
fn png_chunks(bytes: &[u8]) -> impl Iterator<Item = ([u8; 4], &[u8])> {
    let mut rest = bytes.get(8..).unwrap_or_default();
    std::iter::from_fn(move || {
        let length = Order::Big.u32(rest, 0)? as usize;
        let kind = *rest.get(4..)?.first_chunk::<4>()?;
        let body = rest.get(8..)?.get(..length)?;
        rest = rest.get(8 + length + 4..).unwrap_or_default();
        Some((kind, body))
    })
}

/// Returns the EXIF data of ImageMagick's text chunk: a keyword, then, compressed in `zTXt`, a
/// newline, the name, a newline, the length, a newline, and lines of hexadecimal digits.
fn raw_profile(kind: &[u8; 4], body: &[u8]) -> Option<Vec<u8>> {
    let keyword = RAW_PROFILES
        .iter()
        .find(|keyword| body.starts_with(keyword) && body.get(keyword.len()) == Some(&0))?;
    let value = &body[keyword.len() + 1..];
    let text: Cow<'_, [u8]> = match kind {
        b"tEXt" => value.into(),
        b"zTXt" => inflate(value.strip_prefix(&[0])?)?.into(),
        // Two flags and two empty strings: without language and translated keyword.
        b"iTXt" => match value.strip_prefix(&[0, 0, 0, 0]) {
            Some(plain) => plain.into(),
            None => inflate(value.strip_prefix(&[1, 0, 0, 0])?)?.into(),
        },
        _ => return None,
    };
    let mut lines = text.split(|byte| *byte == b'\n').skip(1);
    let (_name, _length) = (lines.next()?, lines.next()?);
    let digits: Vec<u8> = lines
        .flatten()
        .filter_map(|byte| char::from(*byte).to_digit(16))
        .map(|digit| digit as u8)
        .collect();
    let (pairs, _) = digits.as_chunks::<2>();
    Some(pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

fn inflate(compressed: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    let mut limited = ZlibDecoder::new(compressed).take(MAX_TEXT);
    limited.read_to_end(&mut text).ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// TIFF header, one directory with the orientation, big-endian, as TIFF 6.0 lays it out.
    fn big_endian(kind: u16, value: [u8; 4]) -> Vec<u8> {
        let mut data = b"MM\0*\0\0\0\x08\0\x01\x01\x12".to_vec();
        data.extend(kind.to_be_bytes());
        data.extend([0, 0, 0, 1]);
        data.extend(value);
        data.extend([0, 0, 0, 0]);
        data
    }

    #[test]
    fn orientation_is_read_from_bytes_shorts_and_longs() {
        for (kind, value) in [(1, [6, 0, 0, 0]), (3, [0, 6, 0, 0]), (4, [0, 0, 0, 6])] {
            assert_eq!(
                of_exif(&big_endian(kind, value)),
                Orientation::Rotate90,
                "{kind}"
            );
        }
    }

    #[test]
    fn values_outside_1_to_8_and_other_types_mean_upright() {
        for (kind, value) in [
            (3, [0, 0, 0, 0]),
            (3, [0, 9, 0, 0]),
            (4, [0, 0, 1, 6]),
            (4, [1, 0, 0, 6]),
            (2, [b'6', 0, 0, 0]),
        ] {
            assert_eq!(of_exif(&big_endian(kind, value)), Orientation::NoTransforms);
        }
    }

    #[test]
    fn no_cut_of_the_data_panics() {
        let whole = big_endian(3, [0, 6, 0, 0]);
        for kept in 0..whole.len() - 4 {
            let _ = of_exif(&whole[..kept]);
        }
        assert_eq!(of_exif(b"MM\0*\xFF\xFF\xFF\xFF"), Orientation::NoTransforms);
    }

    #[test]
    fn text_that_unpacks_to_more_than_the_limit_is_cut() {
        use std::io::Write;
        let mut bomb = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        bomb.write_all(&vec![b'0'; 8 << 20]).unwrap();
        let text = inflate(&bomb.finish().unwrap()).unwrap();
        assert_eq!(text.len() as u64, MAX_TEXT);
    }
}
