//! Counts the scans of a JPEG by its markers, without decoding.

const FILL: u8 = 0xFF;
const START_OF_IMAGE: u8 = 0xD8;
const END_OF_IMAGE: u8 = 0xD9;
const START_OF_SCAN: u8 = 0xDA;

/// Counts the scans of the first image, reading each byte at most once.
///
/// The decoder counts them too, but it allocates memory for all coefficients before the second
/// scan. Segments are skipped by their length, so a thumbnail inside a segment does not count.
pub(super) fn scans(bytes: &[u8]) -> u64 {
    let mut position = 0;
    let mut scans = 0;
    while let Some((marker, after)) = next_marker(bytes, position) {
        position = after;
        match marker {
            END_OF_IMAGE => break,
            // Without a length: a stuffed zero or a restart marker inside a scan, or a standalone
            // marker.
            0x00 | 0x01 | 0xD0..=0xD7 | START_OF_IMAGE => {}
            _ => {
                let Some(length) = bytes.get(after..).and_then(<[u8]>::first_chunk) else {
                    break;
                };
                position = after + usize::from(u16::from_be_bytes(*length)).max(2);
                scans += u64::from(marker == START_OF_SCAN);
            }
        }
    }
    scans
}

/// Returns the first marker at or after `position`, and the position after it.
fn next_marker(bytes: &[u8], position: usize) -> Option<(u8, usize)> {
    let rest = bytes.get(position..)?;
    let prefix = rest.iter().position(|byte| *byte == FILL)?;
    let code = rest[prefix..].iter().position(|byte| *byte != FILL)? + prefix;
    Some((rest[code], position + code + 1))
}
