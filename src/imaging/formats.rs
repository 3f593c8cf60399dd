//! Names of unsupported formats, for error messages.

/// Describes content that is not a JPEG, PNG, WebP or BMP image, for the sentence "the content is
/// …".
pub(super) fn describe(bytes: &[u8]) -> String {
    if let Some(description) = of_boxes(bytes).or_else(|| of_signature(bytes)) {
        return description.to_owned();
    }
    if let Ok(format) = image::guess_format(bytes) {
        return format!("of the format {}", format.to_mime_type());
    }
    of_text(bytes)
        .unwrap_or(if bytes.iter().all(|byte| *byte == 0) {
            "only zero bytes, not a file of any image format"
        } else {
            "of no known image format"
        })
        .to_owned()
}

/// Files of the ISO base media format (ISO/IEC 14496-12): a `ftyp` box with a major brand and
/// compatible ones.
fn of_boxes(bytes: &[u8]) -> Option<&'static str> {
    if bytes.get(4..8)? != b"ftyp" {
        return None;
    }
    let length = u32::from_be_bytes(*bytes.first_chunk()?) as usize;
    let brands = bytes.get(8..length.min(bytes.len()))?;
    // The second four bytes are the minor version.
    let (brands, _) = brands.as_chunks::<4>();
    let has = |names: &[&[u8; 4]]| {
        let mut brands = brands.iter().enumerate().filter(|(index, _)| *index != 1);
        brands.any(|(_, brand)| names.contains(&brand))
    };
    if has(&[b"avif", b"avis", b"avio"]) {
        return Some("an AVIF image");
    }
    if has(&[
        b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs",
    ]) {
        return Some("a HEIC image");
    }
    if has(&[b"jxl "]) {
        return Some("a JPEG XL image");
    }
    if has(&[b"jp2 ", b"jpx ", b"jph "]) {
        return Some("a JPEG 2000 image");
    }
    if has(&[b"mif1", b"mif2", b"msf1", b"miaf"]) {
        return Some("a HEIF image");
    }
    if has(&[b"crx "]) {
        return Some("a camera's raw image (CR3)");
    }
    Some("an MP4 or QuickTime video")
}

fn of_signature(bytes: &[u8]) -> Option<&'static str> {
    const SIGNATURES: [(&[u8], &str); 12] = [
        (b"\0\0\0\x0CJXL \r\n\x87\n", "a JPEG XL image"),
        (b"\xFF\x0A", "a JPEG XL image"),
        (b"\0\0\0\x0CjP  \r\n\x87\n", "a JPEG 2000 image"),
        (b"\xFF\x4F\xFF\x51", "a JPEG 2000 image"),
        (b"8BPS", "a Photoshop document (PSD)"),
        (b"%PDF", "a PDF document"),
        (b"%!PS", "a PostScript document"),
        (b"PK\x03\x04", "a ZIP archive"),
        (b"\x1F\x8B", "gzip-compressed data"),
        (b"\x1A\x45\xDF\xA3", "a Matroska or WebM video"),
        (b"gimp xcf", "a GIMP image (XCF)"),
        (b"II\xBC", "a JPEG XR image"),
    ];
    SIGNATURES
        .iter()
        .find(|(signature, _)| bytes.starts_with(signature))
        .map(|(_, description)| *description)
}

fn of_text(bytes: &[u8]) -> Option<&'static str> {
    let text = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    let text = text.trim_ascii_start();
    let start = &text[..text.len().min(512)];
    if start.starts_with(b"<svg") || start.starts_with(b"<?xml") {
        return Some("an SVG or XML document");
    }
    if start.starts_with(b"<") {
        return Some("an HTML page");
    }
    if [&b"/9j/"[..], b"iVBOR", b"UklGR", b"data:"]
        .iter()
        .any(|prefix| start.starts_with(prefix))
    {
        return Some("base64 text (send the bytes it encodes)");
    }
    if start.starts_with(b"{") || start.starts_with(b"[") {
        return Some("JSON text");
    }
    if start.starts_with(b"version https://git-lfs") {
        return Some("a Git LFS pointer (fetch the file that it names)");
    }
    let is_text = !start.is_empty()
        && start
            .iter()
            .all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace());
    is_text.then_some("text, of no known image format")
}
