//! Whether a JPEG file is complete, and of how many scans.
//!
//! The decoder in use fills what is missing from a cut-off JPEG with grey and reports success. Half a face would then be
//! learned from, or given an age, as if nothing were wrong. Pillow refuses such files, and so do we: the markers are
//! walked from the start, and a file whose end marker never comes is cut off. The check reads each byte at most once.

const FILL: u8 = 0xFF;
const START_OF_IMAGE: u8 = 0xD8;
const END_OF_IMAGE: u8 = 0xD9;
const START_OF_SCAN: u8 = 0xDA;

/// The scans of the file's first picture, each of which goes over all of its pixels; `None` where no end marker follows them.
///
/// Segments are skipped by their length, so the end marker of a thumbnail inside the EXIF segment does not count.
/// Bytes after the end marker (a second picture, padding) are of no interest.
pub(super) fn scans(bytes: &[u8]) -> Option<u32> {
    let mut position = 0;
    let mut scans: u32 = 0;
    while let Some((marker, after)) = next_marker(bytes, position) {
        position = after;
        match marker {
            END_OF_IMAGE => return (scans > 0).then_some(scans),
            // No length follows: a stuffed zero or a restart marker inside a scan, or a marker of its own.
            0x00 | 0x01 | 0xD0..=0xD7 | START_OF_IMAGE => {}
            _ => {
                let length = bytes.get(after..after + 2)?;
                position = after + usize::from(u16::from_be_bytes([length[0], length[1]])).max(2);
                scans = scans.saturating_add(u32::from(marker == START_OF_SCAN));
            }
        }
    }
    None
}

/// The first marker at or after `position`, and where the bytes after it begin.
fn next_marker(bytes: &[u8], position: usize) -> Option<(u8, usize)> {
    let rest = bytes.get(position..)?;
    let prefix = rest.iter().position(|byte| *byte == FILL)?;
    let code = rest[prefix..].iter().position(|byte| *byte != FILL)? + prefix;
    Some((rest[code], position + code + 1))
}
