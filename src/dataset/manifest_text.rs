//! Text of a manifest as spreadsheets write it: byte order marks, UTF-16, line ends, the line
//! `sep=`, legacy encodings and delimiters.

use std::borrow::Cow;

use csv::{ByteRecord, ReaderBuilder};

/// Number of bytes within which the header must end.
pub(super) const MAX_HEADER_BYTES: usize = 1 << 20;

/// Delimiters to try, most likely first.
const DELIMITERS: [u8; 4] = [b',', b'\t', b';', b'|'];

/// Characters 0x80 to 0x9F of Windows-1252; the rest are those of Unicode. As in the WHATWG's
/// encoding standard, the five bytes without a character are control characters.
const WINDOWS_1252: [char; 32] = [
    '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}',
    '\u{90}', '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
];

/// Bytes of a manifest: UTF-8 except for cells in a legacy encoding, lines end with a line feed.
pub(super) struct Text {
    bytes: Vec<u8>,
    /// Offset of the header in bytes.
    start: usize,
    /// Lines before the header.
    pub(super) skipped_lines: u64,
    /// Delimiter that the line `sep=` declares.
    declared: Option<u8>,
}

impl Text {
    /// Decodes the bytes of a file.
    ///
    /// # Errors
    /// A sentence about the encoding, with a remedy.
    pub(super) fn new(bytes: Vec<u8>) -> Result<Self, String> {
        let mut bytes = decode(bytes)?;
        // Without any line feed, carriage returns end the lines, as on old Macs. The csv crate
        // would read them too, but count one line only.
        if !bytes.contains(&b'\n') {
            for byte in &mut bytes {
                if *byte == b'\r' {
                    *byte = b'\n';
                }
            }
        }
        let mut text = Text {
            bytes,
            start: 0,
            skipped_lines: 0,
            declared: None,
        };
        text.skip_declaration();
        Ok(text)
    }

    /// Returns the header and the rows.
    pub(super) fn table(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// Returns true if the last line has no line end, as in a truncated file.
    pub(super) fn ends_within_line(&self) -> bool {
        !matches!(self.bytes.last(), None | Some(b'\n' | b'\r'))
    }

    /// Returns the delimiter and the headings: the first delimiter whose headings are `usable`,
    /// otherwise the one with the most headings.
    pub(super) fn header(
        &self,
        is_tsv: bool,
        usable: &dyn Fn(&ByteRecord) -> bool,
    ) -> Result<(u8, ByteRecord), csv::Error> {
        let mut candidates = DELIMITERS.to_vec();
        if is_tsv {
            candidates.sort_by_key(|delimiter| *delimiter != b'\t');
        }
        if let Some(declared) = self.declared {
            candidates = vec![declared];
        }
        let table = self.table();
        let head = &table[..table.len().min(MAX_HEADER_BYTES)];
        let mut best: Option<(u8, ByteRecord)> = None;
        for delimiter in candidates {
            let mut header = ByteRecord::new();
            reader(head, delimiter).read_byte_record(&mut header)?;
            if usable(&header) {
                return Ok((delimiter, header));
            }
            if best
                .as_ref()
                .is_none_or(|(_, best)| header.len() > best.len())
            {
                best = Some((delimiter, header));
            }
        }
        Ok(best.unwrap_or_default())
    }

    /// Spreadsheets name their delimiter in a first line such as `sep=;`.
    fn skip_declaration(&mut self) {
        let is_end = |byte: &u8| matches!(byte, b'\n' | b'\r');
        let end = self.bytes.iter().position(is_end);
        let line = &self.bytes[..end.unwrap_or(self.bytes.len())];
        let line = line.strip_prefix(b"\"").unwrap_or(line);
        let named = line.split_at_checked(4);
        let Some((_, rest)) = named.filter(|(name, _)| name.eq_ignore_ascii_case(b"sep=")) else {
            return;
        };
        let Some(delimiter) = rest.first().filter(|byte| is_delimiter(**byte)) else {
            return;
        };
        // After another save, the line may be quoted and padded with delimiters.
        if !rest.iter().all(|byte| byte == delimiter || *byte == b'"') {
            return;
        }
        self.declared = Some(*delimiter);
        self.skipped_lines = 1;
        self.start = match end {
            Some(end) if self.bytes[end..].starts_with(b"\r\n") => end + 2,
            Some(end) => end + 1,
            None => self.bytes.len(),
        };
    }
}

/// A reader of records of any length, the header included.
pub(super) fn reader(table: &[u8], delimiter: u8) -> csv::Reader<&[u8]> {
    ReaderBuilder::new()
        .has_headers(false)
        .delimiter(delimiter)
        .flexible(true)
        .from_reader(table)
}

/// Returns the text of a cell: UTF-8, otherwise Windows-1252, which spreadsheets write on Windows.
pub(super) fn cell(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => bytes.iter().map(|byte| windows_1252(*byte)).collect(),
    }
}

/// Parses the number in a cell. A decimal comma is accepted unless commas separate cells.
pub(super) fn number(cell: &str, delimiter: u8) -> Option<f32> {
    let with_point = match delimiter {
        b',' => Cow::Borrowed(cell),
        _ if cell.matches(',').count() == 1 && !cell.contains('.') => {
            Cow::Owned(cell.replace(',', "."))
        }
        _ => Cow::Borrowed(cell),
    };
    let number = with_point.parse::<f32>().ok();
    number.filter(|number| number.is_finite())
}

fn windows_1252(byte: u8) -> char {
    match byte {
        0x80..=0x9F => WINDOWS_1252[usize::from(byte - 0x80)],
        other => char::from(other),
    }
}

fn is_delimiter(byte: u8) -> bool {
    byte == b'\t' || byte == b' ' || (byte.is_ascii_punctuation() && byte != b'"')
}

/// Removes a byte order mark and converts UTF-16 to UTF-8.
fn decode(mut bytes: Vec<u8>) -> Result<Vec<u8>, String> {
    if bytes.starts_with(&[0xFF, 0xFE, 0, 0]) || bytes.starts_with(&[0, 0, 0xFE, 0xFF]) {
        return Err("it is in UTF-32; save it as UTF-8".to_owned());
    }
    // In practice headings start with an ASCII character, so one of the first two bytes is 0 even
    // without a mark.
    let unit: fn([u8; 2]) -> u16 = match *bytes.as_slice() {
        [0xFF, 0xFE, ..] | [1..=u8::MAX, 0, ..] => u16::from_le_bytes,
        [0xFE, 0xFF, ..] | [0, 1..=u8::MAX, ..] => u16::from_be_bytes,
        [0xEF, 0xBB, 0xBF, ..] => {
            bytes.drain(..3);
            return Ok(bytes);
        }
        _ => return Ok(bytes),
    };
    let (pairs, rest) = bytes.as_chunks::<2>();
    if !rest.is_empty() {
        return Err("it is in UTF-16 and ends within a character, so it was cut off; copy it again, or save it as UTF-8".to_owned());
    }
    let units = pairs.iter().map(|pair| unit(*pair));
    let characters =
        char::decode_utf16(units).map(|read| read.unwrap_or(char::REPLACEMENT_CHARACTER));
    let text: String = characters
        .skip_while(|first| *first == '\u{feff}')
        .collect();
    Ok(text.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(bytes: &[u8]) -> (u8, Vec<String>, u64) {
        let text = Text::new(bytes.to_vec()).unwrap();
        let usable = |record: &ByteRecord| record.iter().any(|name| name == b"age");
        let (delimiter, record) = text.header(false, &usable).unwrap();
        let names = record.iter().map(|name| cell(name).into_owned()).collect();
        (delimiter, names, text.skipped_lines)
    }

    #[test]
    fn the_delimiter_is_the_declared_one_or_the_one_that_gives_usable_headings() {
        let cases: [(&[u8], u8, &[&str], u64); 11] = [
            (b"path,age\n", b',', &["path", "age"], 0),
            (b"path;age\n", b';', &["path", "age"], 0),
            (b"path\tage\r\n", b'\t', &["path", "age"], 0),
            (b"path|age\n", b'|', &["path", "age"], 0),
            (
                b"path;age;\"note, free\"\n",
                b';',
                &["path", "age", "note, free"],
                0,
            ),
            (b"path;age;a,b,c,d\n", b';', &["path", "age", "a,b,c,d"], 0),
            (
                b"path,age,\"a;b;c;d\"\n",
                b',',
                &["path", "age", "a;b;c;d"],
                0,
            ),
            (b"sep=;\r\npath;age\r\n", b';', &["path", "age"], 1),
            (b"SEP=^\npath^age\n", b'^', &["path", "age"], 1),
            (b"\"sep=,\",,\npath,age,\n", b',', &["path", "age", ""], 1),
            (b"sep=\t\rpath\tage\r", b'\t', &["path", "age"], 1),
        ];
        for (bytes, delimiter, names, skipped) in cases {
            let shown = String::from_utf8_lossy(bytes);
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            assert_eq!(header(bytes), (delimiter, names, skipped), "{shown}");
        }
        // A heading that only begins like a declaration.
        assert_eq!(header(b"sep=x,age\n").1, ["sep=x", "age"]);
    }

    #[test]
    fn headings_that_are_not_usable_are_those_of_the_likeliest_delimiter() {
        assert_eq!(header(b"name;years;note\n").1, ["name", "years", "note"]);
        assert_eq!(header(b"").1, [""; 0]);
    }

    #[test]
    fn utf16_is_read_with_and_without_a_byte_order_mark() {
        let written = "path,age\nMüller 한국 😀.jpg,3\n";
        let marked = format!("\u{feff}{written}");
        for text in [written, &marked] {
            let little: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
            let big: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
            for bytes in [little, big, text.as_bytes().to_vec()] {
                assert_eq!(Text::new(bytes).unwrap().table(), written.as_bytes());
            }
        }
        let cut = "path,age"
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .take(15)
            .collect();
        assert!(Text::new(cut).err().unwrap().contains("UTF-16"));
        let utf32 = [0xFF, 0xFE, 0, 0, b'p', 0, 0, 0].to_vec();
        assert!(Text::new(utf32).err().unwrap().contains("UTF-32"));
    }

    #[test]
    fn windows_1252_is_what_python_decodes() {
        // bytes([0x80, 0x8a, 0x9f, 0xdf, 0xe9, 0xff]).decode("cp1252")
        assert_eq!(cell(b"\x80\x8A\x9F\xDF\xE9\xFF"), "€ŠŸßéÿ");
        assert_eq!(cell("Zoë".as_bytes()), "Zoë");
    }

    #[test]
    fn carriage_returns_alone_end_lines() {
        let text = Text::new(b"path,age\ra.png,1\r".to_vec()).unwrap();
        assert_eq!(text.table(), b"path,age\na.png,1\n");
        let text = Text::new(b"path,age\r\na.png,1\r\n".to_vec()).unwrap();
        assert_eq!(text.table(), b"path,age\r\na.png,1\r\n");
    }

    #[test]
    fn a_comma_is_decimal_where_it_does_not_separate_cells() {
        assert_eq!(number("31,5", b';'), Some(31.5));
        assert_eq!(number("31,5", b'\t'), Some(31.5));
        assert_eq!(number("31,5", b','), None);
        assert_eq!(number("31.5", b';'), Some(31.5));
        assert_eq!(number("1,031.5", b';'), None);
        assert_eq!(number("1,2,3", b';'), None);
        assert_eq!(number("nan", b';'), None);
        assert_eq!(number("1e400", b','), None);
        assert_eq!(number("+23", b','), Some(23.0));
    }
}
