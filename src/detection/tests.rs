use std::path::PathBuf;

use image::imageops;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::synth::Person;

const MODEL_PATH: &str = "src/detection/seetaface/seeta_fd_frontal_v1.0.bin";

/// An image of twenty-nine people in three rows, the Solvay conference of 1927, from the sources of
/// rustface.
///
/// Returns `None` and prints that where cargo keeps those sources elsewhere, for example vendored.
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn group_image() -> Option<RgbImage> {
    let home = option_env!("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(std::env::home_dir()?.join(".cargo")))?;
    let registries = fs_err::read_dir(home.join("registry/src"));
    let path = registries
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .map(|registry| registry.path().join("rustface-0.1.7/test.png"))
        .find(|path| path.is_file());
    if path.is_none() {
        eprintln!("skipped: the sources of rustface 0.1.7 are not in cargo's registry");
    }
    path.map(|path| image::open(path).unwrap().into_rgb8())
}

fn drawn(age: u8, seed: u64) -> RgbImage {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    Person::sample(age, &mut rng).draw(200, &mut rng).unwrap()
}

fn contains(square: Square, (x, y): (i32, i32)) -> bool {
    let side = square.side as i32;
    (square.left..square.left + side).contains(&x) && (square.top..square.top + side).contains(&y)
}

#[test]
fn windows_are_those_of_the_original() {
    // At the size of the search, so that both see the same pixels, and without the faces at the
    // edges, which the original moves.
    let Some(group) = group_image() else {
        return;
    };
    let image = imageops::crop_imm(&group, 0, 0, 1000, 700).to_image();
    let grey = imageops::grayscale(&image);
    let mut original = rustface::create_detector(MODEL_PATH).unwrap();
    original.set_score_thresh(MIN_SCORE);
    let pixels = rustface::ImageData::new(grey.as_raw(), grey.width(), grey.height());
    let mut expected: Vec<_> = original
        .detect(&pixels)
        .iter()
        .map(|face| {
            let edges = (face.bbox().x(), face.bbox().y(), face.bbox().width());
            (edges, (face.score() * 1e3).round() as i64)
        })
        .collect();
    let mut found: Vec<_> = find(&image, &|| false)
        .unwrap()
        .iter()
        .map(|face| {
            let Square { left, top, side } = face.detected;
            ((left, top, side), (face.score * 1e3).round() as i64)
        })
        .collect();
    expected.sort_unstable();
    found.sort_unstable();
    assert!(found.len() > 10, "{found:?}");
    assert_eq!(found, expected);
}

#[test]
fn the_people_of_a_group_image_are_found() {
    let Some(group) = group_image() else {
        return;
    };
    let faces = find(&group, &|| false).unwrap();
    // Located by eye: Curie, Lorentz, Einstein, Langevin, Planck and Dirac.
    for person in [
        (490, 290),
        (690, 290),
        (895, 275),
        (1072, 280),
        (315, 285),
        (796, 215),
    ] {
        let found = faces.iter().filter(|face| contains(face.detected, person));
        assert_eq!(found.count(), 1, "{person:?} in {faces:?}");
    }
    assert!((20..=29).contains(&faces.len()), "{}", faces.len());
    let weights: Vec<f64> = faces.iter().map(Face::weight).collect();
    assert!(
        weights.is_sorted_by(|one, other| one >= other),
        "{weights:?}"
    );
}

#[test]
fn drawn_faces_are_found_where_they_were_put() {
    let mut canvas = RgbImage::from_pixel(900, 500, image::Rgb([120, 130, 140]));
    let places = [(40, 30), (350, 250), (660, 100)];
    for (seed, (left, top)) in places.into_iter().enumerate() {
        imageops::replace(&mut canvas, &drawn(35, seed as u64), left, top);
    }
    let faces = find(&canvas, &|| false).unwrap();
    assert_eq!(faces.len(), places.len(), "{faces:?}");
    for (left, top) in places {
        let middle = (left as i32 + 100, top as i32 + 110);
        let found = faces.iter().find(|face| contains(face.detected, middle));
        let side = found.unwrap().crop.side;
        assert!((80..=220).contains(&side), "{side}");
    }
}

#[test]
fn images_of_any_shape_have_a_result() {
    for (width, height) in [(1, 1), (3000, 1), (1, 3000), (39, 41), (40, 40), (5000, 60)] {
        let faces = find(&RgbImage::new(width, height), &|| false);
        assert_eq!(faces, Some(Vec::new()), "{width}x{height}");
    }
    // A tiny face, and one across the edge, where networks move windows out of the image.
    let face = drawn(40, 1);
    let small = imageops::thumbnail(&face, 50, 50);
    assert_eq!(find(&small, &|| false).unwrap().len(), 1);
    let cut = imageops::crop_imm(&face, 40, 0, 160, 170).to_image();
    let noise = RgbImage::from_fn(500, 400, |x, y| {
        let value = (x.wrapping_mul(2_654_435_761) ^ y.wrapping_mul(40_503)) >> 7;
        image::Rgb([value as u8, (value >> 3) as u8, (value >> 5) as u8])
    });
    assert!(find(&cut, &|| false).is_some());
    assert_eq!(find(&noise, &|| false).unwrap(), []);
}

#[test]
fn a_search_stops_on_request() {
    let calls = std::cell::Cell::new(0);
    let stop = || {
        calls.set(calls.get() + 1);
        calls.get() > 2
    };
    let Some(group) = group_image() else {
        return;
    };
    assert_eq!(find(&group, &stop), None);
    assert_eq!(calls.get(), 3);
}

#[test]
fn damaged_models_are_refused() {
    let whole = fs_err::read(MODEL_PATH).unwrap();
    assert!(Model::read(&whole).is_ok());
    for length in [0, 3, 20, whole.len() / 2, whole.len() - 1] {
        assert!(Model::read(&whole[..length]).is_err(), "{length}");
    }
    assert!(Model::read(&[&whole[..], &[0; 4]].concat()).is_err());
    let mut changed = whole.clone();
    // The column of the first feature.
    changed[24..28].copy_from_slice(&1000_i32.to_le_bytes());
    let refused = Model::read(&changed).unwrap_err().to_string();
    assert!(refused.contains("a feature at (1000"), "{refused}");
}

#[test]
fn pixels_beyond_the_edge_are_black() {
    let image = RgbImage::from_fn(4, 3, |x, y| image::Rgb([10 + x as u8, 10 + y as u8, 9]));
    let square = Square {
        left: -1,
        top: 1,
        side: 3,
    };
    let crop = crop(&image, square);
    let red: Vec<u8> = crop.pixels().map(|pixel| pixel.0[0]).collect();
    assert_eq!(red, [0, 10, 11, 0, 10, 11, 0, 0, 0]);
}
