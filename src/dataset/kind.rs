//! Kind of a file, by its name, or by its first bytes if the name leaves it open.

/// Extensions of images. The content decides later which format it really is.
const IMAGE_EXTENSIONS: [&str; 12] = [
    "jpg", "jpeg", "jpe", "jfif", "jfi", "jif", "pjpeg", "pjp", "png", "webp", "bmp", "dib",
];

/// Extensions of files that are common beside images and never images. They are not opened, and
/// cause no warning.
const OTHER_EXTENSIONS: [&str; 61] = [
    "7z",
    "avi",
    "bz2",
    "cfg",
    "ckpt",
    "csv",
    "db",
    "doc",
    "docx",
    "gz",
    "h5",
    "hdf5",
    "htm",
    "html",
    "ini",
    "ipynb",
    "js",
    "json",
    "jsonl",
    "lnk",
    "lock",
    "log",
    "mat",
    "md",
    "md5",
    "mkv",
    "mov",
    "mp3",
    "mp4",
    "npy",
    "npz",
    "ods",
    "onnx",
    "parquet",
    "pdf",
    "pkl",
    "pt",
    "pth",
    "py",
    "rar",
    "rst",
    "safetensors",
    "sh",
    "sha1",
    "sha256",
    "sqlite",
    "tar",
    "tgz",
    "toml",
    "torrent",
    "tsv",
    "txt",
    "url",
    "wav",
    "xls",
    "xlsx",
    "xml",
    "xz",
    "yaml",
    "yml",
    "zip",
];

/// Sizes of a BMP's second header; it starts at byte 14 with its size.
const BMP_HEADERS: [u32; 8] = [12, 16, 40, 52, 56, 64, 108, 124];

/// Number of first bytes that [`is_image_content`] needs.
pub(crate) const HEAD_BYTES: u64 = 18;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileKind {
    Image,
    /// Hidden, or with an extension that images never have.
    Other,
    /// The content decides.
    Unknown,
}

/// Returns the kind of a file by its name.
#[must_use]
pub(crate) fn file_kind(name: &str) -> FileKind {
    // macOS stores the icon of a directory in a file of this name.
    if name.starts_with('.') || name == "Icon\r" {
        return FileKind::Other;
    }
    let Some((_, extension)) = name.rsplit_once('.') else {
        return FileKind::Unknown;
    };
    let is_among = |known: &[&str]| known.iter().any(|one| extension.eq_ignore_ascii_case(one));
    if is_among(&IMAGE_EXTENSIONS) {
        FileKind::Image
    } else if is_among(&OTHER_EXTENSIONS) {
        FileKind::Other
    } else {
        FileKind::Unknown
    }
}

/// Returns true for the first [`HEAD_BYTES`] bytes of a JPEG, PNG, WebP or BMP file.
#[must_use]
pub(crate) fn is_image_content(head: &[u8]) -> bool {
    let is_webp = head.starts_with(b"RIFF") && head.get(8..12) == Some(b"WEBP");
    // Many texts start with its two letters.
    let is_bmp = head.starts_with(b"BM")
        && head
            .get(14..18)
            .and_then(|size| size.try_into().ok())
            .is_some_and(|size| BMP_HEADERS.contains(&u32::from_le_bytes(size)));
    head.starts_with(b"\xFF\xD8\xFF") || head.starts_with(b"\x89PNG\r\n\x1A\n") || is_webp || is_bmp
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_extension_decides_where_it_is_a_known_one_and_the_content_elsewhere() {
        let cases = [
            ("1_a.jpg", FileKind::Image),
            ("1_a.JPEG", FileKind::Image),
            ("1_a.Png", FileKind::Image),
            ("1_a.webp", FileKind::Image),
            ("1_a.bmp", FileKind::Image),
            ("1_a.jfif", FileKind::Image),
            ("1_a.JFIF", FileKind::Image),
            ("1_a.jpe", FileKind::Image),
            ("1_a.pjpeg", FileKind::Image),
            ("1_a.jpg_large", FileKind::Unknown),
            ("1_a.jpg ", FileKind::Unknown),
            ("1_a.gif", FileKind::Unknown),
            ("1_a.heic", FileKind::Unknown),
            ("1_a", FileKind::Unknown),
            ("jpg", FileKind::Unknown),
            ("1_a.jpg.txt", FileKind::Other),
            ("manifest.csv", FileKind::Other),
            ("epoch-12.PTH", FileKind::Other),
            ("Thumbs.db", FileKind::Other),
            ("desktop.ini", FileKind::Other),
            ("Icon\r", FileKind::Other),
            (".1_a.jpg", FileKind::Other),
            ("._1_a.jpg", FileKind::Other),
            (".DS_Store", FileKind::Other),
        ];
        for (name, expected) in cases {
            assert_eq!(file_kind(name), expected, "{name:?}");
        }
    }

    #[test]
    fn only_formats_that_can_be_decoded_are_recognised_by_content() {
        let images: [&[u8]; 4] = [
            b"\xFF\xD8\xFF\xE0\0\x10JFIF\0\x01\x01\0\0\x01",
            b"\x89PNG\r\n\x1A\n\0\0\0\rIHDR\0\0",
            b"RIFF\x24\0\0\0WEBPVP8 \0\0",
            b"BM\x36\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0",
        ];
        for head in images {
            assert!(is_image_content(head), "{head:?}");
            assert!(!is_image_content(&head[..2]), "{head:?}");
        }
        let others: [&[u8]; 6] = [
            b"",
            b"BMW is the name of a car",
            b"RIFF\x24\0\0\0WAVEfmt \0\0",
            b"GIF89a\x01\0\x01\0\0\0\0;",
            b"\0\0\0\x18ftypheic\0\0\0\0mi",
            b"PK\x03\x04",
        ];
        for head in others {
            assert!(!is_image_content(head), "{head:?}");
        }
    }
}
