//! Chunks of a WebP file (RFC 9649) that its decoder does not handle.

use std::borrow::Cow;

/// Bytes of an animation frame's header before its flags.
const FRAME_FLAGS: usize = 15;
/// The frame replaces the canvas instead of being blended with it.
const DO_NOT_BLEND: u8 = 0b10;

/// Iterates over the kind of each chunk and the range of its content.
pub(super) fn chunks(bytes: &[u8]) -> impl Iterator<Item = ([u8; 4], std::ops::Range<usize>)> {
    let mut start = 12;
    std::iter::from_fn(move || {
        let header = bytes.get(start..)?.first_chunk::<8>()?;
        let [k0, k1, k2, k3, length @ ..] = *header;
        let content = start + 8;
        let end = content.checked_add(u32::from_le_bytes(length) as usize)?;
        // A chunk of odd length is padded with a byte.
        start = end.checked_add((end - content) % 2)?;
        Some(([k0, k1, k2, k3], content..end.min(bytes.len())))
    })
}

/// Returns the file with the first frame of an animation marked as not blended.
///
/// The canvas is transparent, so the result is equal except for the rounding of the decoder, which
/// for nearly transparent pixels is as large as the colour itself.
pub(super) fn without_blending(bytes: &[u8]) -> Cow<'_, [u8]> {
    let frame = chunks(bytes).find(|(kind, _)| kind == b"ANMF");
    let flags = frame.map(|(_, content)| content.start + FRAME_FLAGS);
    match flags.filter(|at| {
        bytes
            .get(*at)
            .is_some_and(|flags| flags & DO_NOT_BLEND == 0)
    }) {
        Some(at) => {
            let mut changed = bytes.to_vec();
            changed[at] |= DO_NOT_BLEND;
            changed.into()
        }
        None => bytes.into(),
    }
}
