//! Numbers in the paths of images.

pub(super) fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

pub(super) fn directory_name(path: &str) -> Option<&str> {
    path.rsplit('/').nth(1)
}

fn digits(path: &str) -> &str {
    let name = file_name(path);
    &name[..name.bytes().take_while(u8::is_ascii_digit).count()]
}

/// Returns the whole number at the start of a file name.
pub(super) fn leading_number(path: &str) -> Option<u64> {
    digits(path).parse().ok()
}

/// Returns true for a number with more digits than an age.
pub(super) fn has_wide_number(path: &str) -> bool {
    digits(path).len() >= 4
}

/// Returns true for a file name that is a number and an extension.
pub(super) fn is_number(path: &str) -> bool {
    let rest = &file_name(path)[digits(path).len()..];
    !digits(path).is_empty() && rest.starts_with('.') && rest.matches('.').count() == 1
}
