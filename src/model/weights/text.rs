//! Text for messages.

/// Longest part of a name in a message, in characters.
const LONGEST: usize = 80;

/// The name of a Python object, as [`quoted`].
pub(super) fn quoted_object(module: &str, name: &str) -> String {
    // Shortened before they are joined: a name may have megabytes, and be listed many times.
    let shorten = |part: &str| -> String { part.chars().take(LONGEST).collect() };
    quoted(&format!("{}.{}", shorten(module), shorten(name)))
}

/// A name from an untrusted file, quoted, escaped and shortened.
pub(super) fn quoted(name: &str) -> String {
    let mut short: String = name.chars().take(LONGEST).collect();
    if short.len() < name.len() {
        short.push('…');
    }
    format!("{short:?}")
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
