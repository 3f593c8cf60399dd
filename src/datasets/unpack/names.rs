//! Names of entries as text. [`super::entry::Target`] checks them afterwards.

/// Extra field of a zip with the name in UTF-8 (Info-ZIP's "Unicode Path", APPNOTE.TXT 4.6.9).
const UNICODE_PATH: u16 = 0x7075;

/// Characters of the bytes from 128 on in code page 437, which APPNOTE.TXT (appendix D) prescribes
/// for names that a zip does not declare as UTF-8. The accented letters of Western Europe are equal
/// in code page 850.
const CODE_PAGE_437: [char; 128] = [
    'Ç', 'ü', 'é', 'â', 'ä', 'à', 'å', 'ç', 'ê', 'ë', 'è', 'ï', 'î', 'ì', 'Ä', 'Å', //
    'É', 'æ', 'Æ', 'ô', 'ö', 'ò', 'û', 'ù', 'ÿ', 'Ö', 'Ü', '¢', '£', '¥', '₧', 'ƒ', //
    'á', 'í', 'ó', 'ú', 'ñ', 'Ñ', 'ª', 'º', '¿', '⌐', '¬', '½', '¼', '¡', '«', '»', //
    '░', '▒', '▓', '│', '┤', '╡', '╢', '╖', '╕', '╣', '║', '╗', '╝', '╜', '╛', '┐', //
    '└', '┴', '┬', '├', '─', '┼', '╞', '╟', '╚', '╔', '╩', '╦', '╠', '═', '╬', '╧', //
    '╨', '╤', '╥', '╙', '╘', '╒', '╓', '╫', '╪', '┘', '┌', '█', '▄', '▌', '▐', '▀', //
    'α', 'ß', 'Γ', 'π', 'Σ', 'σ', 'µ', 'τ', 'Φ', 'Θ', 'Ω', 'δ', '∞', 'φ', 'ε', '∩', //
    '≡', '±', '≥', '≤', '⌠', '⌡', '÷', '≈', '°', '∙', '·', '√', 'ⁿ', '²', '■', '\u{a0}',
];

/// Returns the text of a name in a zip; `None` if the zip declares it as UTF-8 and it is not.
///
/// Without that flag, the extra field for Unicode decides if it belongs to this name, then UTF-8 if
/// the bytes are valid, as macOS writes them, then code page 437.
pub(super) fn of_zip(raw: &[u8], is_utf8: bool, extra: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(raw).ok();
    if is_utf8 {
        return text.map(str::to_owned);
    }
    let text = unicode_path(raw, extra).or(text).map(str::to_owned);
    Some(text.unwrap_or_else(|| decode(raw)))
}

/// Returns the text of a name in a tar, which has no flag for its encoding: UTF-8, otherwise
/// ISO 8859-1, which preserves every byte.
pub(super) fn of_tar(raw: &[u8]) -> String {
    match std::str::from_utf8(raw) {
        Ok(text) => text.to_owned(),
        Err(_) => raw.iter().copied().map(char::from).collect(),
    }
}

/// Iterates over the ids and bodies of an extra field.
pub(super) fn extra_fields(extra: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = extra;
    std::iter::from_fn(move || {
        let (head, behind) = rest.split_at_checked(4)?;
        let id = u16::from_le_bytes([head[0], head[1]]);
        let length = u16::from_le_bytes([head[2], head[3]]);
        let (body, behind) = behind.split_at_checked(usize::from(length))?;
        rest = behind;
        Some((id, body))
    })
}

/// Returns the name in the extra field, if it belongs to the raw name: programs that rename an
/// entry may leave the field of the old name.
fn unicode_path<'a>(raw: &[u8], extra: &'a [u8]) -> Option<&'a str> {
    let (_, body) = extra_fields(extra).find(|(id, _)| *id == UNICODE_PATH)?;
    let (head, name) = body.split_at_checked(5)?;
    let checksum = u32::from_le_bytes([head[1], head[2], head[3], head[4]]);
    let is_of_this_name = head[0] == 1 && checksum == crc32fast::hash(raw);
    let name = std::str::from_utf8(name).ok()?;
    (is_of_this_name && !name.is_empty()).then_some(name)
}

/// Decodes code page 437. Names in other code pages become other letters, which matters only if two
/// names become equal. In those of East Asia a backslash can be the second byte of a letter; it
/// does not separate components there, so it becomes the wide one.
fn decode(raw: &[u8]) -> String {
    let mut before = 0;
    let character = |byte: &u8| {
        let is_second = *byte == b'\\' && before >= 128;
        before = *byte;
        match byte.checked_sub(128) {
            None if is_second => '\u{ff3c}',
            None => char::from(*byte),
            Some(index) => CODE_PAGE_437[usize::from(index)],
        }
    };
    raw.iter().map(character).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(id: u16, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap();
        [&id.to_le_bytes()[..], &length.to_le_bytes(), body].concat()
    }

    fn unicode_field(of: &[u8], name: &str) -> Vec<u8> {
        let checksum = crc32fast::hash(of).to_le_bytes();
        field(
            UNICODE_PATH,
            &[&[1], &checksum[..], name.as_bytes()].concat(),
        )
    }

    #[test]
    fn names_of_a_zip_are_utf_8_or_code_page_437() {
        // As Python's codec cp437 encodes them.
        let cases: [(&[u8], bool, Option<&str>); 9] = [
            (b"30_a.jpg", false, Some("30_a.jpg")),
            (b"30_M\x81ller.jpg", false, Some("30_Müller.jpg")),
            (b"30_Andr\x82.jpg", false, Some("30_André.jpg")),
            (
                b"30_\x84\x94\x81\xe1\xff.jpg",
                false,
                Some("30_äöüß\u{a0}.jpg"),
            ),
            // 表 in Shift JIS, and a directory in code page 850.
            (b"30_\x95\\.jpg", false, Some("30_ò\u{ff3c}.jpg")),
            (b"M\x81ller\\30_a.jpg", false, Some("Müller\\30_a.jpg")),
            ("30_Müller.jpg".as_bytes(), false, Some("30_Müller.jpg")),
            ("30_Müller.jpg".as_bytes(), true, Some("30_Müller.jpg")),
            (b"30_M\x81ller.jpg", true, None),
        ];
        for (raw, is_utf8, expected) in cases {
            assert_eq!(of_zip(raw, is_utf8, &[]).as_deref(), expected, "{raw:?}");
        }
    }

    #[test]
    fn the_unicode_field_of_a_zip_counts_for_its_own_name_only() {
        let raw = b"30_?.jpg";
        let other = field(0x5455, b"\x01abcd");
        let own = [other.clone(), unicode_field(raw, "30_あ.jpg")].concat();
        assert_eq!(of_zip(raw, false, &own).as_deref(), Some("30_あ.jpg"));
        let stale = unicode_field(b"old.jpg", "30_あ.jpg");
        let cut = &own[..own.len() - 1];
        let empty = unicode_field(raw, "");
        for extra in [&stale[..], cut, &empty, &other, b"\x75\x70\xff\xff"] {
            assert_eq!(of_zip(raw, false, extra).as_deref(), Some("30_?.jpg"));
        }
    }

    #[test]
    fn names_of_a_tar_are_utf_8_or_iso_8859_1() {
        assert_eq!(of_tar("30_Müller.jpg".as_bytes()), "30_Müller.jpg");
        assert_eq!(of_tar(b"30_M\xfcller.jpg"), "30_Müller.jpg");
    }
}
