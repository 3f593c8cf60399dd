//! JPEG files that `tests/fixtures/generate/make_jpeg_fixtures.py` wrote, against the pixels that
//! Pillow decodes from them.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use fs_err as fs;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::imaging::{Error, Limits, decode, inspect};

#[derive(Deserialize)]
struct Expected {
    accepted: Vec<Accepted>,
    refused: Vec<Refused>,
}

#[derive(Deserialize)]
struct Accepted {
    file: String,
    width: u32,
    height: u32,
    sha256: String,
}

#[derive(Deserialize)]
struct Refused {
    file: String,
    reason: String,
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/jpeg")
}

fn fixture(name: &str) -> Vec<u8> {
    fs::read(directory().join(name)).unwrap()
}

fn expected() -> Expected {
    serde_json::from_slice(&fixture("expected.json")).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

#[test]
fn every_kind_of_jpeg_decodes_to_the_pixels_of_pillow_bit_by_bit() {
    let accepted = expected().accepted;
    assert!(accepted.len() > 80);
    for file in accepted {
        let bytes = fixture(&file.file);
        let image = decode(&bytes, &Limits::default())
            .unwrap_or_else(|error| panic!("{}: {error}", file.file));
        assert_eq!(
            image.dimensions(),
            (file.width, file.height),
            "{}",
            file.file
        );
        let digest = hex(&Sha256::digest(image.as_raw()));
        assert_eq!(digest, file.sha256, "{}", file.file);
        inspect(&bytes, &Limits::default())
            .unwrap_or_else(|error| panic!("{}: {error}", file.file));
    }
}

#[test]
fn missing_data_and_unsupported_kinds_are_refused_by_name_with_and_without_pixels() {
    let refused = expected().refused;
    assert!(refused.len() > 20);
    for file in refused {
        let bytes = fixture(&file.file);
        for error in [
            decode(&bytes, &Limits::default()).unwrap_err(),
            inspect(&bytes, &Limits::default()).unwrap_err(),
        ] {
            assert!(
                error.to_string().contains(&file.reason),
                "{}: {error}",
                file.file
            );
        }
    }
}

/// A progressive JPEG of 8×8 pixels with this many scans: the first and refinements that change
/// nothing.
fn with_scans(count: usize) -> Vec<u8> {
    let mut bytes = fixture("sides_8x8.jpg");
    let end = bytes.len() - 2;
    let start = bytes
        .windows(2)
        .rposition(|pair| pair == [0xFF, 0xDA])
        .unwrap();
    // Behind its frame a sequential JPEG may not repeat a scan, so the frame becomes a progressive
    // one.
    let frame = bytes
        .windows(2)
        .position(|pair| pair == [0xFF, 0xC0])
        .unwrap();
    bytes[frame + 1] = 0xC2;
    let components = usize::from(bytes[start + 4]);
    // Only the constant coefficients, which may be interleaved.
    let spectral_end = start + 4 + 1 + 2 * components + 1;
    bytes[spectral_end] = 0;
    let scan = bytes[start..end].to_vec();
    bytes.truncate(end);
    for _ in 1..count {
        bytes.extend(&scan);
    }
    bytes.extend([0xFF, 0xD9]);
    bytes
}

#[test]
fn scans_are_limited_by_the_pixels_that_they_visit() {
    // 16 scans over as many pixels as are allowed: with 128 pixels allowed, 32 scans over 64.
    let limits = Limits {
        max_pixels: 128,
        ..Limits::default()
    };
    let refused = |count| match decode(&with_scans(count), &limits) {
        Err(Error::Corrupt { reason, .. }) => reason.contains("more than the 32 scans"),
        _ => false,
    };
    assert!(!refused(32));
    assert!(refused(33));
}
