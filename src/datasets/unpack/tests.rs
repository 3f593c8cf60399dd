//! Valid and hostile archives, written by the crates `tar`, `zip` and `flate2`; the hostile ones
//! are then modified.

use std::{
    io::{Cursor, Write},
    path::Path,
};

use ::tar::{Builder, EntryType, Header};
use ::zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};
use flate2::{Compression, write::GzEncoder};
use fs_err as fs;

use crate::dataset::Skipped;

use super::*;

const LIMITS: Limits = Limits {
    bytes: 1 << 20,
    entries: 20,
};
/// The content is not checked here, but by the scan.
const IMAGE: &[u8] = b"the image";

type Outcome = Result<(Unpacked, Vec<(String, Vec<u8>)>), Error>;

/// Unpacks an archive and returns the files by name.
fn unpacked(archive: &[u8], limits: Limits) -> Outcome {
    let directory = tempfile::tempdir().unwrap();
    let (path, out) = (
        directory.path().join("archive"),
        directory.path().join("out"),
    );
    write(&path, archive);
    fs::create_dir(&out).unwrap();
    let found = unpack(&path, &out, &limits, &mut |done, total| {
        assert!(done <= total, "{done} of {total}");
        true
    });
    let mut outside: Vec<String> = names(directory.path());
    outside.sort();
    assert_eq!(
        outside,
        ["archive", "out"],
        "nothing is written beside the directory"
    );
    let mut files = Vec::new();
    collect(&out, "", &mut files);
    files.sort();
    found.map(|found| (found, files))
}

fn write(path: &Path, bytes: &[u8]) {
    fs::File::create(path).unwrap().write_all(bytes).unwrap();
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

fn collect(directory: &Path, prefix: &str, files: &mut Vec<(String, Vec<u8>)>) {
    for name in names(directory) {
        let path = directory.join(&name);
        let name = format!("{prefix}{name}");
        // Links are not followed: there must be none.
        match fs::symlink_metadata(&path).unwrap().is_dir() {
            true => collect(&path, &format!("{name}/"), files),
            false => files.push((name, fs::read(path).unwrap())),
        }
    }
}

/// The sentence that an archive is refused with.
fn refusal(archive: &[u8]) -> String {
    unpacked(archive, LIMITS).unwrap_err().to_string()
}

/// A tar of these entries; names go in as they are.
fn tar_of(entries: &[(&str, EntryType, &[u8])]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (name, kind, bytes) in entries {
        let mut header = Header::new_gnu();
        // `set_path` would refuse what the tests are about.
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(*kind);
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        if matches!(kind, EntryType::Symlink | EntryType::Link) {
            header.set_link_name("/etc/passwd").unwrap();
        }
        header.set_cksum();
        builder.append(&header, *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

fn tar_file(name: &str) -> Vec<u8> {
    tar_of(&[
        ("1_first.jpg", EntryType::Regular, IMAGE),
        (name, EntryType::Regular, IMAGE),
    ])
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zip_of(entries: &[(&str, &[u8])], method: CompressionMethod) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in entries {
        let options = SimpleFileOptions::default().compression_method(method);
        match name.strip_suffix('/') {
            Some(directory) => writer.add_directory(directory, options).unwrap(),
            None => {
                writer.start_file(*name, options).unwrap();
                writer.write_all(bytes).unwrap();
            }
        }
    }
    writer.finish().unwrap().into_inner()
}

/// Changes a name in both places where a zip has it, to another of the same length.
fn renamed(mut zip: Vec<u8>, from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut found = 0;
    for at in 0..=zip.len() - from.len() {
        if &zip[at..at + from.len()] == from.as_bytes() {
            zip[at..at + from.len()].copy_from_slice(to.as_bytes());
            found += 1;
        }
    }
    assert_eq!(found, 2);
    zip
}

fn good() -> Vec<(&'static str, &'static [u8])> {
    vec![
        ("faces/", b""),
        ("faces/train/30_a.jpg", IMAGE),
        ("faces/val/./31_b.PNG", b""),
        ("manifest.csv", b"path,age\n"),
        ("README.txt", b"not of a dataset"),
        ("__MACOSX/30_a.jpg", b"not an image"),
        (".git/32_c.jpg", b"hidden"),
    ]
}

fn check_good(archive: &[u8]) {
    let (found, files) = unpacked(archive, LIMITS).unwrap();
    let expected = [
        ("faces/train/30_a.jpg", IMAGE),
        ("faces/val/31_b.PNG", b""),
        ("manifest.csv", b"path,age\n"),
    ];
    let expected = expected.map(|(name, bytes)| (name.to_owned(), bytes.to_vec()));
    assert_eq!(files, expected);
    assert_eq!((found.files, found.bytes, found.ignored), (3, 18, 3));
}

#[test]
fn images_and_manifests_of_every_kind_of_archive_are_unpacked() {
    let entries: Vec<_> = good()
        .into_iter()
        .map(|(name, bytes)| match name.ends_with('/') {
            true => (name, EntryType::Directory, bytes),
            false => (name, EntryType::Regular, bytes),
        })
        .collect();
    let tar = tar_of(&entries);
    check_good(&tar);
    check_good(&gzip(&tar));
    check_good(&zip_of(&good(), CompressionMethod::Stored));
    check_good(&zip_of(&good(), CompressionMethod::Deflated));
}

#[test]
fn long_names_of_both_kinds_of_tar_are_read() {
    let name = format!("{}/30_a.jpg", "x".repeat(150));
    let mut gnu = Builder::new(Vec::new());
    let mut header = Header::new_gnu();
    header.set_size(IMAGE.len() as u64);
    header.set_mode(0o644);
    gnu.append_data(&mut header, &name, IMAGE).unwrap();
    let mut pax = Builder::new(Vec::new());
    pax.append_pax_extensions([("path", name.as_bytes()), ("mtime", b"1.5")])
        .unwrap();
    let mut header = Header::new_ustar();
    header.set_path("30_short.jpg").unwrap();
    header.set_size(IMAGE.len() as u64);
    header.set_mode(0o644);
    header.set_cksum();
    pax.append(&header, IMAGE).unwrap();
    for tar in [gnu.into_inner().unwrap(), pax.into_inner().unwrap()] {
        let (_, files) = unpacked(&tar, LIMITS).unwrap();
        assert_eq!(files, [(name.clone(), IMAGE.to_vec())]);
    }
}

#[test]
fn a_name_that_leads_out_is_refused_and_told() {
    for (name, problem) in [
        ("../30_out.jpg", "leads out of the archive with `..`"),
        ("a/../../30_o.jpg", "leads out of the archive with `..`"),
        ("/tmp/30_abs.jpg", "is an absolute path"),
        ("C:/30_drive.jpg", "is an absolute path"),
        ("30_new\nline.jpg", "has a control character"),
    ] {
        let zip = zip_of(
            &[("1_first.jpg", IMAGE), (&"n".repeat(name.len()), IMAGE)],
            CompressionMethod::Deflated,
        );
        for archive in [
            tar_file(name),
            gzip(&tar_file(name)),
            renamed(zip, &"n".repeat(name.len()), name),
        ] {
            let said = refusal(&archive);
            assert!(said.contains(problem), "{name:?}: {said}");
            assert!(
                said.contains(&format!("entry {name:?}")),
                "{name:?}: {said}"
            );
        }
    }
}

#[test]
fn a_backslash_in_the_name_of_a_tar_is_refused() {
    for name in ["a\\..\\30_back.jpg", "a\\30_back.jpg", "C:\\30_drive.jpg"] {
        for archive in [tar_file(name), gzip(&tar_file(name))] {
            let said = refusal(&archive);
            assert!(said.contains("has a backslash"), "{name:?}: {said}");
        }
    }
}

#[test]
fn links_and_devices_are_refused_and_told() {
    for (kind, what) in [
        (EntryType::Symlink, "a symbolic link"),
        (EntryType::Link, "a hard link"),
        (EntryType::Char, "a device"),
        (EntryType::Block, "a device"),
        (EntryType::Fifo, "a pipe"),
        (EntryType::GNUSparse, "a sparse file"),
        (EntryType::new(b'?'), "a kind that is not known"),
    ] {
        let tar = tar_of(&[
            ("30_first.jpg", EntryType::Regular, IMAGE),
            ("31_x.jpg", kind, b""),
        ]);
        let said = refusal(&tar);
        assert!(
            said.contains("\"31_x.jpg\"") && said.contains(what),
            "{said}"
        );
    }
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default();
    writer
        .add_symlink("31_x.jpg", "/etc/passwd", options)
        .unwrap();
    let said = refusal(&writer.finish().unwrap().into_inner());
    assert!(
        said.contains("\"31_x.jpg\": it must be a file or a directory, got a symbolic link"),
        "{said}"
    );
}

#[test]
fn a_second_file_of_a_name_or_a_file_as_a_directory_is_refused() {
    for second in ["30_a.jpg", "./30_a.jpg", "30_a.jpg/31_b.jpg"] {
        let tar = tar_of(&[
            ("30_a.jpg", EntryType::Regular, IMAGE),
            (second, EntryType::Regular, IMAGE),
        ]);
        let said = refusal(&tar);
        assert!(
            said.contains("an earlier entry has this name"),
            "{second}: {said}"
        );
    }
}

#[test]
fn more_entries_than_allowed_are_refused_at_the_first_too_many() {
    let names: Vec<String> = (0..21).map(|age| format!("{age}_a.jpg")).collect();
    let tar: Vec<_> = names
        .iter()
        .map(|name| (name.as_str(), EntryType::Regular, IMAGE))
        .collect();
    let zip: Vec<_> = names.iter().map(|name| (name.as_str(), IMAGE)).collect();
    for archive in [tar_of(&tar), zip_of(&zip, CompressionMethod::Stored)] {
        let said = refusal(&archive);
        assert!(
            said.contains("\"20_a.jpg\": it has more than 20 entries"),
            "{said}"
        );
    }
}

#[test]
fn more_bytes_than_allowed_are_refused_whatever_the_archive_says() {
    let large = vec![0; 2 << 20];
    let entries = [("30_a.jpg", IMAGE), ("31_large.jpg", &large[..])];
    let tar = tar_of(&entries.map(|(name, bytes)| (name, EntryType::Regular, bytes)));
    let zip = zip_of(&entries, CompressionMethod::Deflated);
    // The size in the directory is not what comes out.
    let mut lying = zip.clone();
    let at = lying
        .windows(4)
        .rposition(|four| four == (2_u32 << 20).to_le_bytes())
        .unwrap();
    lying[at..at + 4].copy_from_slice(&10_u32.to_le_bytes());
    for archive in [tar.clone(), gzip(&tar), zip, lying] {
        let said = refusal(&archive);
        assert!(
            said.contains("\"31_large.jpg\": its files have more than 1048576 bytes"),
            "{said}"
        );
    }
}

#[test]
fn what_grows_as_no_images_do_is_a_bomb() {
    let limits = Limits {
        bytes: 1 << 40,
        entries: 20,
    };
    let zeros = vec![0; archive::MIN_ALLOWED as usize + 1];
    let tar = tar_of(&[
        ("30_a.jpg", EntryType::Regular, IMAGE),
        ("31_zeros.jpg", EntryType::Regular, &zeros),
    ]);
    let zip = zip_of(&[("31_zeros.jpg", &zeros)], CompressionMethod::Deflated);
    for archive in [gzip(&tar), zip] {
        let said = unpacked(&archive, limits).unwrap_err().to_string();
        assert!(
            said.contains("\"31_zeros.jpg\": it unpacks to more than 67108864 bytes"),
            "{said}"
        );
    }
    // Not written, but it would have to be read.
    let skipped = tar_of(&[
        ("30_a.jpg", EntryType::Regular, IMAGE),
        ("zeros.txt", EntryType::Regular, &zeros),
        ("more-zeros.txt", EntryType::Regular, &zeros),
    ]);
    let said = unpacked(&gzip(&skipped), limits).unwrap_err().to_string();
    assert!(
        said.contains("which an archive of images never does"),
        "{said}"
    );
}

#[test]
fn an_archive_that_is_cut_off_anywhere_is_damaged_or_refused() {
    let random: Vec<u8> = (0..4_000_u32)
        .map(|index| (index.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let entries = [("30_a.jpg", IMAGE), ("31_b.jpg", &random[..])];
    let tar = tar_of(&entries.map(|(name, bytes)| (name, EntryType::Regular, bytes)));
    // Behind its last byte of data a tar has zeros only.
    let data_end = 512 + 512 + 512 + random.len();
    let whole = [
        (tar.clone(), data_end),
        (gzip(&tar), usize::MAX),
        (zip_of(&entries, CompressionMethod::Stored), usize::MAX),
        (zip_of(&entries, CompressionMethod::Deflated), usize::MAX),
    ];
    for (archive, end) in whole {
        assert!(unpacked(&archive, LIMITS).is_ok());
        // A tar that ends between two entries looks complete.
        let between = 1024;
        for length in (0..archive.len().min(end))
            .step_by(101)
            .filter(|length| *length != between)
        {
            let found = unpacked(&archive[..length], LIMITS);
            assert!(
                found.is_err(),
                "{length} of {} bytes: {found:?}",
                archive.len()
            );
        }
    }
}

#[test]
fn changed_bytes_of_a_zip_never_do_more_than_refuse_it() {
    let zip = zip_of(
        &[("30_a.jpg", IMAGE), ("31_b.jpg", IMAGE)],
        CompressionMethod::Stored,
    );
    for at in 0..zip.len() {
        for value in [0, 1, 0x7f, 0xff] {
            let mut changed = zip.clone();
            changed[at] = value;
            // The byte decides whether it is refused; nothing may be written outside in either
            // case.
            drop(unpacked(&changed, LIMITS));
        }
    }
    let at = zip
        .windows(IMAGE.len())
        .position(|bytes| bytes == IMAGE)
        .unwrap();
    let mut changed = zip;
    changed[at] ^= 1;
    let said = refusal(&changed);
    assert!(
        said.contains("\"30_a.jpg\"") && said.contains("checksum is wrong"),
        "{said}"
    );
}

#[test]
fn claims_of_a_zip_cost_no_memory_and_no_panic() {
    let mut zip = zip_of(&[("30_a.jpg", IMAGE)], CompressionMethod::Stored);
    let end = zip.len() - 22;
    zip[end + 8..end + 12].fill(0xfe);
    let said = refusal(&zip);
    assert!(said.contains("directory is incomplete"), "{said}");
    for archive in [&b"PK\x05\x06"[..], b"PK\x03\x04", &[b'P', b'K', 5, 6, 0xff]] {
        assert!(refusal(archive).contains("damaged"));
    }
    let mut encrypted = zip_of(&[("30_a.jpg", IMAGE)], CompressionMethod::Stored);
    let directory = encrypted
        .windows(4)
        .position(|four| four == b"PK\x01\x02")
        .unwrap();
    encrypted[directory + 8] |= 1;
    assert!(refusal(&encrypted).contains("\"30_a.jpg\": it is encrypted"));
}

#[test]
fn a_long_name_of_a_tar_is_not_read_without_bound() {
    let long = vec![b'x'; 20_000];
    for kind in [EntryType::GNULongName, EntryType::XHeader] {
        let tar = tar_of(&[
            ("first.jpg", kind, &long),
            ("30_a.jpg", EntryType::Regular, IMAGE),
        ]);
        let said = refusal(&tar);
        assert!(said.contains("at most 16384 bytes, got 20000"), "{said}");
    }
}

#[test]
fn what_is_no_archive_or_has_no_image_is_refused_with_a_way_out() {
    assert_eq!(refusal(b""), "the file must be a zip, tar or gzipped tar");
    assert_eq!(refusal(IMAGE), "the file must be a zip, tar or gzipped tar");
    let zip = zip_of(&[("notes.txt", IMAGE)], CompressionMethod::Stored);
    assert!(
        refusal(&zip).contains(
            "must contain images (.jpg, .png, .webp or .bmp); 1 other files were ignored"
        )
    );
}

#[test]
fn unpacking_ends_when_it_is_cancelled() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("archive");
    for archive in [
        tar_file("31_b.jpg"),
        gzip(&tar_file("31_b.jpg")),
        zip_of(&[("30_a.jpg", IMAGE)], CompressionMethod::Stored),
    ] {
        write(&path, &archive);
        let out = tempfile::tempdir().unwrap();
        let ended = unpack(&path, out.path(), &LIMITS, &mut |_, _| false);
        assert!(matches!(ended, Err(Error::Cancelled)), "{ended:?}");
    }
}

/// A zip of entries whose names go in as they are, without the mark for UTF-8.
fn raw_zip(names: &[&[u8]]) -> Vec<u8> {
    let letters = ('a'..='z').map(String::from);
    let texts: Vec<String> = letters
        .zip(names)
        .map(|(letter, name)| letter.repeat(name.len()))
        .collect();
    let entries: Vec<(&str, &[u8])> = texts.iter().map(|text| (text.as_str(), IMAGE)).collect();
    let mut zip = zip_of(&entries, CompressionMethod::Deflated);
    for (text, name) in texts.iter().zip(names) {
        let mut found = 0;
        for at in 0..=zip.len() - text.len() {
            if &zip[at..at + text.len()] == text.as_bytes() {
                zip[at..at + text.len()].copy_from_slice(name);
                found += 1;
            }
        }
        assert_eq!(found, 2, "{text}");
    }
    zip
}

/// A zip of one stored entry whose directory has this extra field for Unicode.
fn zip_with_extra(name: &[u8], body: &[u8]) -> Vec<u8> {
    let short = |value: usize| u16::try_from(value).unwrap().to_le_bytes();
    let long = |value: usize| u32::try_from(value).unwrap().to_le_bytes();
    let extra = [&0x7075_u16.to_le_bytes()[..], &short(body.len()), body].concat();
    let checksum = crc32fast::hash(IMAGE).to_le_bytes();
    let size = long(IMAGE.len());
    // Version, flags, method, time and date.
    let common = [
        &[20, 0][..],
        &[0; 8],
        &checksum,
        &size,
        &size,
        &short(name.len()),
    ]
    .concat();
    let local = [&b"PK\x03\x04"[..], &common, &[0; 2], name, IMAGE].concat();
    let lengths = [&short(extra.len())[..], &[0; 14]].concat();
    let entry = [
        &b"PK\x01\x02"[..],
        &[20, 0],
        &common,
        &lengths,
        name,
        &extra,
    ]
    .concat();
    let counts = [
        &[0; 4][..],
        &[1, 0, 1, 0],
        &long(entry.len()),
        &long(local.len()),
        &[0; 2],
    ];
    [&local[..], &entry, b"PK\x05\x06", &counts.concat()].concat()
}

fn names_of(archive: &[u8]) -> Vec<String> {
    let (_, files) = unpacked(archive, LIMITS).unwrap();
    files.into_iter().map(|(name, _)| name).collect()
}

#[test]
fn names_of_a_zip_in_other_code_pages_and_with_backslashes_are_read() {
    let zip = raw_zip(&[
        b"faces\\train\\30_M\x81ller.jpg",
        b"faces\\val/31_Andr\x82.jpg",
        "faces/val/32_Jörg.jpg".as_bytes(),
        // 本 in Shift JIS.
        b"faces/33_\x96\x7b.jpg",
        b"faces\\test\\",
    ]);
    assert_eq!(
        names_of(&zip),
        [
            "faces/33_û{.jpg",
            "faces/train/30_Müller.jpg",
            "faces/val/31_André.jpg",
            "faces/val/32_Jörg.jpg",
        ]
    );
    let tar = tar_of(&[("30_M?ller.jpg", EntryType::Regular, IMAGE)]);
    let mut latin = tar.clone();
    let at = tar.iter().position(|byte| *byte == b'?').unwrap();
    latin[at] = 0xFC;
    // The checksum of the header is the sum of its bytes.
    let checksum = latin[..512].iter().enumerate().map(|(index, byte)| {
        u32::from(if (148..156).contains(&index) {
            b' '
        } else {
            *byte
        })
    });
    let checksum = format!("{:06o}\0 ", checksum.sum::<u32>());
    latin[148..156].copy_from_slice(checksum.as_bytes());
    assert_eq!(names_of(&latin), ["30_Müller.jpg"]);
}

#[test]
fn a_name_of_a_zip_that_leads_out_after_its_conversion_is_refused() {
    let cases: [(&[u8], &str); 12] = [
        (b"..\\30_x.jpg", "leads out of the archive"),
        (b"..\\..\\30_x.jpg", "leads out of the archive"),
        (b"a\\..\\..\\30_x.jpg", "leads out of the archive"),
        (b"a/..\\30_x.jpg", "leads out of the archive"),
        (b"\x81\x81/..\\30_x.jpg", "leads out of the archive"),
        (b"__MACOSX\\..\\30_x.jpg", "leads out of the archive"),
        (b"C:\\30_x.jpg", "an absolute path"),
        (b".\\C:\\30_x.jpg", "an absolute path"),
        (b"c:30_x.jpg", "an absolute path"),
        (b"\\30_x.jpg", "an absolute path"),
        (b"\\\\server\\share\\30_x.jpg", "an absolute path"),
        (b"30_\x81\x01x.jpg", "a control character"),
    ];
    for (name, problem) in cases {
        let said = refusal(&raw_zip(&[b"1_first_of_them.jpg", name]));
        assert!(said.contains(problem), "{name:?}: {said}");
    }
    // The name in the extra field is checked as well.
    let raw = b"30_plain.jpg";
    let mut body = vec![1];
    body.extend(crc32fast::hash(raw).to_le_bytes());
    body.extend(b"../30_out.jpg");
    let said = refusal(&zip_with_extra(raw, &body));
    assert!(said.contains("leads out of the archive"), "{said}");
    body.splice(5.., *b"30_other.jpg");
    assert_eq!(names_of(&zip_with_extra(raw, &body)), ["30_other.jpg"]);
}

#[test]
fn names_of_a_zip_that_become_equal_are_refused() {
    let utf_8 = "30_ü.jpg".as_bytes();
    let cases: [[&[u8]; 2]; 4] = [
        [b"a/30_x.jpg", b"a\\30_x.jpg"],
        [b"a\\\\30_x.jpg", b"a\\.\\30_x.jpg"],
        [b"30_\x81.jpg", utf_8],
        [b"30_x.jpg", b"30_x.jpg\\31_y.jpg"],
    ];
    for names in cases {
        let said = refusal(&raw_zip(&names));
        assert!(
            said.contains("an earlier entry has this name"),
            "{names:?}: {said}"
        );
    }
}

#[test]
fn files_that_macos_adds_are_ignored_and_never_written() {
    let zip = raw_zip(&[
        b"faces/30_a.jpg",
        b"__MACOSX/faces/._30_a.jpg",
        b"faces/._31_b.jpg",
        b"faces/.DS_Store",
        b"faces/Icon\r",
        b"__MACOSX/faces/._Icon\r",
    ]);
    let (found, files) = unpacked(&zip, LIMITS).unwrap();
    assert_eq!(files.len(), 1);
    assert_eq!((found.files, found.ignored), (1, 5));
    assert_eq!(found.skipped, Skipped::default());
    let said = refusal(&raw_zip(&[b"30_a.jpg", b"faces/Icon\r/30_b.jpg"]));
    assert!(said.contains("a control character"), "{said}");
}

#[test]
fn the_content_decides_about_files_of_an_archive_whose_extension_is_not_known() {
    const JPEG: &[u8] = b"\xFF\xD8\xFF\xE0 and more than the first bytes of an image";
    let entries: [(&str, &[u8]); 6] = [
        ("30_a.jpg", IMAGE),
        ("31_b", JPEG),
        ("32_c.jpg_large", JPEG),
        ("33_d.heic", b"\0\0\0\x18ftypheic"),
        ("LICENSE", b""),
        ("inner/faces.zip", b"PK\x03\x04"),
    ];
    let tar = tar_of(&entries.map(|(name, bytes)| (name, EntryType::Regular, bytes)));
    for archive in [
        gzip(&tar),
        tar,
        zip_of(&entries, CompressionMethod::Stored),
        zip_of(&entries, CompressionMethod::Deflated),
    ] {
        let (found, files) = unpacked(&archive, LIMITS).unwrap();
        let expected = [
            ("30_a.jpg", IMAGE),
            ("31_b", JPEG),
            ("32_c.jpg_large", JPEG),
        ];
        let expected = expected.map(|(name, bytes)| (name.to_owned(), bytes.to_vec()));
        assert_eq!(files, expected);
        assert_eq!((found.files, found.ignored), (3, 3));
        let warnings = found.skipped.warnings();
        assert!(
            warnings[0].starts_with("2 files are ignored")
                && warnings[0].contains("33_d.heic, LICENSE")
                && warnings[1].contains("inner/faces.zip"),
            "{warnings:?}"
        );
    }
    let only_inner = zip_of(&entries[5..], CompressionMethod::Stored);
    let said = refusal(&only_inner);
    assert!(
        said.contains("must contain images") && said.contains("for example inner/faces.zip"),
        "{said}"
    );
}

#[test]
fn files_whose_content_decides_are_limited_as_others_are() {
    let mut large = vec![0; 2 << 20];
    large[..4].copy_from_slice(b"\xFF\xD8\xFF\xE0");
    let entries = [("30_a.jpg", IMAGE), ("31_large", &large[..])];
    let tar = tar_of(&entries.map(|(name, bytes)| (name, EntryType::Regular, bytes)));
    for archive in [tar, zip_of(&entries, CompressionMethod::Deflated)] {
        let said = refusal(&archive);
        assert!(
            said.contains("\"31_large\": its files have more than 1048576 bytes"),
            "{said}"
        );
    }
    let zip = zip_of(
        &[("30_a.jpg", IMAGE), ("31_b", b"\xFF\xD8\xFF\xE0 an image")],
        CompressionMethod::Stored,
    );
    let at = zip
        .windows(8)
        .position(|bytes| bytes == b"an image")
        .unwrap();
    let mut changed = zip;
    changed[at] ^= 1;
    let said = refusal(&changed);
    assert!(
        said.contains("\"31_b\"") && said.contains("checksum is wrong"),
        "{said}"
    );
}
