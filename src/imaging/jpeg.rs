//! Whether a JPEG file is complete.
//!
//! The decoder in use fills what is missing from a cut-off JPEG with grey and reports success. Half a face would then be
//! learned from, or given an age, as if nothing were wrong. Pillow refuses such files, and so do we: the markers are
//! walked from the start, and a file whose end marker never comes is cut off. The check reads each byte at most once.

const FILL: u8 = 0xFF;
const START_OF_IMAGE: u8 = 0xD8;
const END_OF_IMAGE: u8 = 0xD9;
const START_OF_SCAN: u8 = 0xDA;

/// True where the first picture of the file is followed by its end marker.
///
/// Segments are skipped by their length, so the end marker of a thumbnail inside the EXIF segment does not count.
/// Bytes after the end marker (a second picture, padding) are of no interest.
pub(super) fn is_complete(bytes: &[u8]) -> bool {
    let mut position = 0;
    let mut seen_scan = false;
    while let Some((marker, after)) = next_marker(bytes, position) {
        position = after;
        match marker {
            END_OF_IMAGE => return seen_scan,
            // No length follows: a stuffed zero or a restart marker inside a scan, or a marker of its own.
            0x00 | 0x01 | 0xD0..=0xD7 | START_OF_IMAGE => {}
            _ => {
                let Some(length) = bytes.get(after..after + 2) else {
                    return false;
                };
                position = after + usize::from(u16::from_be_bytes([length[0], length[1]])).max(2);
                seen_scan |= marker == START_OF_SCAN;
            }
        }
    }
    false
}

/// The first marker at or after `position`, and where the bytes after it begin.
fn next_marker(bytes: &[u8], position: usize) -> Option<(u8, usize)> {
    let rest = bytes.get(position..)?;
    let prefix = rest.iter().position(|byte| *byte == FILL)?;
    let code = rest[prefix..].iter().position(|byte| *byte != FILL)? + prefix;
    Some((rest[code], position + code + 1))
}
