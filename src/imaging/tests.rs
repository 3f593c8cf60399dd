//! Against Pillow's numbers, which `tests/fixtures/generate/make_imaging_fixtures.py` wrote beside
//! the images it drew.

use std::path::{Path, PathBuf};

use fs_err as fs;
use image::{Rgb, RgbImage};
use serde::Deserialize;

use super::{decode::Header, *};

fn resize(image: &RgbImage, size: u32) -> RgbImage {
    Preprocessor::new().resize(image.clone(), size)
}

/// Greatest difference of one 8-bit sample after decoding and resizing. Without loss, and for JPEG,
/// only the resizing rounds differently; lossy WebP leaves the last bits of colour to the decoder,
/// where 2 is the greatest difference of these images.
const LOSSLESS_TOLERANCE: u8 = 1;
const LOSSY_TOLERANCE: u8 = 3;

#[derive(Deserialize)]
struct Expected {
    size: u32,
    images: Vec<Image>,
    patterns: Vec<Pattern>,
}

#[derive(Deserialize)]
struct Image {
    file: String,
    kind: String,
    width: u32,
    height: u32,
}

#[derive(Deserialize)]
struct Pattern {
    file: String,
    width: u32,
    height: u32,
    size: u32,
    rows: Vec<u32>,
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/imaging")
}

fn fixture(name: &str) -> Vec<u8> {
    fs::read(directory().join(name)).unwrap()
}

fn expected() -> Expected {
    serde_json::from_slice(&fixture("expected.json")).unwrap()
}

fn greatest_difference(ours: &[u8], theirs: &[u8]) -> u8 {
    assert_eq!(ours.len(), theirs.len());
    ours.iter()
        .zip(theirs)
        .map(|(ours, theirs)| ours.abs_diff(*theirs))
        .max()
        .unwrap()
}

/// The same integers as `pattern` in the Python script.
fn pattern(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        Rgb([
            (x * x / 97 + y * 3) as u8,
            (x * 7 + y * y / 53) as u8,
            (x / 5 * 31 + y / 3 * 17) as u8,
        ])
    })
}

#[test]
fn every_fixture_decodes_and_resizes_to_the_pixels_of_pillow() {
    let expected = expected();
    assert!(expected.images.len() > 20);
    for image in &expected.images {
        let decoded = decode(&fixture(&image.file), &Limits::default()).unwrap();
        assert_eq!(
            decoded.dimensions(),
            (image.width, image.height),
            "{}",
            image.file
        );
        let resized = resize(&decoded, expected.size);
        let difference =
            greatest_difference(resized.as_raw(), &fixture(&format!("{}.bin", image.file)));
        let tolerance = match image.kind.as_str() {
            "lossless" => LOSSLESS_TOLERANCE,
            _ => LOSSY_TOLERANCE,
        };
        assert!(
            difference <= tolerance,
            "{}: a sample differs by {difference}, allowed are {tolerance}",
            image.file
        );
    }
}

#[test]
fn large_reductions_and_enlargements_give_the_rows_of_pillow() {
    for case in expected().patterns {
        let resized = resize(&pattern(case.width, case.height), case.size);
        let row_bytes = case.size as usize * 3;
        let rows: Vec<u8> = case
            .rows
            .iter()
            .flat_map(|row| &resized.as_raw()[*row as usize * row_bytes..][..row_bytes])
            .copied()
            .collect();
        let difference = greatest_difference(&rows, &fixture(&case.file));
        assert!(difference <= 1, "{}: differs by {difference}", case.file);
    }
}

#[test]
fn a_image_of_the_right_size_is_left_untouched() {
    let image = pattern(64, 64);
    assert_eq!(resize(&image, 64), image);
}

#[test]
fn preprocess_writes_the_planes_that_numpy_computes() {
    let spec = InputSpec {
        size: 32,
        ..InputSpec::default()
    };
    let mut ours = vec![0.0; spec.values()];
    Preprocessor::new()
        .preprocess(&fixture("wide.png"), &Limits::default(), &spec, &mut ours)
        .unwrap();
    let bytes = fixture("wide.normalised.bin");
    let theirs = bytes
        .as_chunks::<4>()
        .0
        .iter()
        .map(|number| f32::from_le_bytes(*number));
    // One 8-bit level is 1 / 255 / 0.224 = 0.0175 at most.
    let greatest = ours
        .iter()
        .zip(theirs)
        .map(|(ours, theirs)| (ours - theirs).abs())
        .fold(0.0_f32, f32::max);
    assert!(greatest < 0.0176, "a number differs by {greatest}");
}

#[test]
fn normalising_by_hand_gives_the_same_numbers() {
    let spec = InputSpec {
        size: 1,
        ..InputSpec::default()
    };
    let mut out = [0.0; 3];
    normalise_into(
        &RgbImage::from_pixel(1, 1, Rgb([255, 0, 51])),
        &spec,
        &mut out,
    );
    // (1 - 0.485) / 0.229, (0 - 0.456) / 0.224 and (0.2 - 0.406) / 0.225.
    for (ours, by_hand) in out.iter().zip([2.248_908_3, -2.035_714_3, -0.915_555_6]) {
        assert!((ours - by_hand).abs() < 1e-6, "{ours} is not {by_hand}");
    }
}

#[test]
fn one_preprocessor_gives_the_same_result_for_images_of_changing_size() {
    let mut reused = Preprocessor::new();
    for (width, height) in [(300, 20), (17, 90), (300, 20)] {
        let image = pattern(width, height);
        assert_eq!(reused.resize(image.clone(), 40), resize(&image, 40));
    }
}

#[test]
fn a_file_cut_off_anywhere_is_corrupt() {
    for name in [
        "half_chroma.jpg",
        "progressive.jpg",
        "oriented_6.jpg",
        "wide.png",
        "plain.bmp",
        "lossless.webp",
        "lossy.webp",
    ] {
        let whole = fixture(name);
        for kept in [whole.len() - 20, whole.len() / 2, whole.len() / 3] {
            let error = decode(&whole[..kept], &Limits::default()).unwrap_err();
            assert!(
                matches!(error, Error::Corrupt { .. }),
                "{name} cut to {kept} bytes: {error}"
            );
        }
    }
}

#[test]
fn a_jpeg_without_its_end_marker_is_corrupt_also_in_the_header_check() {
    let whole = fixture("half_chroma.jpg");
    for missing in [1, 2, 3] {
        let error = inspect(&whole[..whole.len() - missing], &Limits::default()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the JPEG image cannot be decoded: the file ends before the image does"
        );
    }
}

#[test]
fn bytes_after_the_end_of_a_jpeg_do_no_harm() {
    let mut longer = fixture("half_chroma.jpg");
    let limits = Limits::default();
    let plain = decode(&longer, &limits).unwrap();
    longer.extend_from_slice(b"trailing notes of a camera");
    assert_eq!(decode(&longer, &limits).unwrap(), plain);
}

#[test]
fn no_cut_and_no_flipped_byte_of_any_fixture_panics() {
    let limits = Limits {
        max_pixels: 100_000,
        ..Limits::default()
    };
    for image in expected().images {
        let whole = fixture(&image.file);
        for position in (0..whole.len()).step_by(whole.len() / 40) {
            let mut damaged = whole.clone();
            damaged[position] ^= 0xFF;
            for bytes in [&whole[..position], &damaged[..]] {
                if let Ok(decoded) = decode(bytes, &limits) {
                    assert!(decoded.width() > 0 && decoded.height() > 0);
                }
            }
        }
    }
}

#[test]
fn limits_hold_before_decoding_and_the_message_names_both_numbers() {
    let bytes = fixture("plain.bmp");
    let small_file = Limits {
        max_bytes: 100,
        ..Limits::default()
    };
    assert_eq!(
        decode(&bytes, &small_file).unwrap_err().to_string(),
        format!("the image has {} bytes and the limit is 100", bytes.len())
    );
    let few_pixels = Limits {
        max_pixels: 61 * 47 - 1,
        ..Limits::default()
    };
    let short_side = Limits {
        max_dimension: 60,
        ..Limits::default()
    };
    for limits in [few_pixels, short_side] {
        for result in [
            decode(&bytes, &limits).map(|_| ()),
            inspect(&bytes, &limits).map(|_| ()),
        ] {
            let error = result.unwrap_err();
            assert!(
                matches!(
                    error,
                    Error::Dimensions {
                        width: 61,
                        height: 47,
                        ..
                    }
                ),
                "{error}"
            );
        }
    }
    let exact = Limits {
        max_pixels: 61 * 47,
        max_dimension: 61,
        max_bytes: bytes.len() as u64,
    };
    assert!(decode(&bytes, &exact).is_ok());
}

#[test]
fn a_header_that_promises_a_huge_image_is_refused_without_allocating_it() {
    // The width and the height of a PNG are eight bytes at offset 16, and a check sum over the
    // chunk follows.
    let mut bomb = fixture("wide.png");
    bomb[16..24].copy_from_slice(&[0, 0, 0xFF, 0xFF, 0, 0, 0xFF, 0xFF]);
    // CRC-32 of "IHDR", two times 65535, 8 bits, RGB, from Python's zlib.crc32.
    bomb[29..33].copy_from_slice(&0x3967_4E07_u32.to_be_bytes());
    let error = inspect(&bomb, &Limits::default()).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Dimensions {
                width: 65_535,
                height: 65_535,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn other_content_is_named_in_the_message() {
    let limits = Limits::default();
    assert_eq!(decode(b"", &limits).unwrap_err(), Error::Empty);
    let cases: [(&[u8], &str); 6] = [
        (b"GIF89a\x01\0\x01\0\0\0\0;", "of the format image/gif"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "a HEIC image"),
        (b"%PDF-1.7 ...........", "a PDF document"),
        (b"<!doctype html><title>404</title>", "an HTML page"),
        (b"/9j/4AAQSkZJRgABAQAAAQAB", "base64 text"),
        (
            b"just a sentence of some length",
            "of no known image format",
        ),
    ];
    for (bytes, found) in cases {
        let message = decode(bytes, &limits).unwrap_err().to_string();
        assert!(
            message.contains(found) && message.contains("JPEG, PNG, WebP or BMP"),
            "{message}"
        );
    }
}

#[test]
fn inspect_reads_the_header_of_every_format() {
    let limits = Limits::default();
    for (name, format) in [
        ("half_chroma.jpg", "JPEG"),
        ("wide.png", "PNG"),
        ("lossy.webp", "WebP"),
        ("plain.bmp", "BMP"),
    ] {
        let header = inspect(&fixture(name), &limits).unwrap();
        assert_eq!(
            header,
            Header {
                format,
                width: 61,
                height: 47
            }
        );
    }
}

#[test]
fn the_input_specification_survives_json_and_refuses_what_it_does_not_know() {
    let spec = InputSpec::default();
    let json = serde_json::to_value(&spec).unwrap();
    assert_eq!(json["filter"], "bilinear_antialiased");
    assert_eq!(json["fit"], "stretch");
    assert_eq!(
        serde_json::from_value::<InputSpec>(json.clone()).unwrap(),
        spec
    );

    let mut unknown = json;
    unknown["crop"] = serde_json::json!(0.875);
    assert!(serde_json::from_value::<InputSpec>(unknown).is_err());
}

#[test]
fn an_unusable_input_specification_is_refused_by_field() {
    let default = InputSpec::default();
    assert_eq!(default.validate(), Ok(()));
    let cases = [
        (
            InputSpec {
                size: 0,
                ..default.clone()
            },
            "size is 0, not 1 to 1024",
        ),
        (
            InputSpec {
                mean: [f32::NAN, 0.0, 0.0],
                ..default.clone()
            },
            "mean is [NaN, 0.0, 0.0]",
        ),
        (
            InputSpec {
                std: [0.2, 0.0, 0.2],
                ..default
            },
            "std is [0.2, 0.0, 0.2]",
        ),
    ];
    for (spec, reason) in cases {
        let message = spec.validate().unwrap_err().to_string();
        assert!(message.contains(reason), "{message}");
    }
}
