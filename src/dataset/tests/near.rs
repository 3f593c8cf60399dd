//! Near-duplicates in directories of drawn faces and changed copies of them.

use std::collections::BTreeSet;
use std::io::Cursor;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use fs_err as fs;
use image::codecs::jpeg::JpegEncoder;
use image::imageops::{self, FilterType};
use image::{ImageFormat, Rgb, RgbImage};
use tempfile::TempDir;

use super::super::{report::RejectReason, *};
use crate::synth;

/// A root whose directory `faces` holds drawn faces.
struct Faces {
    root: TempDir,
    /// The names of the drawn faces, sorted.
    drawn: Vec<String>,
}

impl Faces {
    fn draw(count: usize, seed: u64) -> Self {
        let root = TempDir::new().unwrap();
        let directory = root.path().join("faces");
        let options = synth::Options {
            count,
            seed,
            size: 128,
            ..synth::Options::default()
        };
        synth::write_faces(&directory, &options, |_| {}).unwrap();
        let mut drawn: Vec<String> = fs::read_dir(&directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        drawn.sort();
        Faces { root, drawn }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join("faces").join(name)
    }

    fn image(&self, index: usize) -> RgbImage {
        let bytes = fs::read(self.path(&self.drawn[index])).unwrap();
        image::load_from_memory(&bytes).unwrap().into_rgb8()
    }

    /// Writes a copy as JPEG; it sorts behind the drawn faces.
    fn add(&self, name: &str, image: &RgbImage, quality: u8) -> String {
        let mut bytes = Vec::new();
        JpegEncoder::new_with_quality(&mut bytes, quality)
            .encode_image(image)
            .unwrap();
        let name = format!("99_{name}.jpg");
        fs::write(self.path(&name), bytes).unwrap();
        name
    }

    fn load(&self, options: &Options) -> Dataset {
        let roots = Roots::new([self.root.path().to_path_buf()]).unwrap();
        let path = self.root.path().join("faces");
        load(&path, &roots, options, &mut |_, _, _| {}, &|| false).unwrap()
    }
}

fn near(distance: u32) -> Options {
    Options {
        // A few images may all be in one part.
        purpose: Purpose::Evaluation,
        near: Some(distance),
        ..Options::default()
    }
}

/// The names of each group, with distance and mirroring of all but the first.
fn groups(dataset: &Dataset) -> Vec<Vec<(&str, u32, bool)>> {
    let member = |member: &NearMember| {
        let sample = &dataset.split(member.split)[member.index];
        (sample.name.as_str(), member.distance, member.is_mirrored)
    };
    let near = dataset.near.as_ref().unwrap();
    near.iter()
        .map(|group| group.iter().map(member).collect())
        .collect()
}

#[test]
fn changed_copies_are_found_and_different_faces_are_not() {
    let faces = Faces::draw(60, 4);
    let drawn = &faces.drawn;
    let mut expected = Vec::new();
    let mut expect = |index: usize, copy: String, is_mirrored: bool| {
        expected.push((drawn[index].clone(), copy, is_mirrored));
    };
    let one = faces.add("encoded_again", &faces.image(0), 40);
    expect(0, one, false);
    let half = imageops::resize(&faces.image(1), 64, 64, FilterType::Triangle);
    expect(1, faces.add("half_the_size", &half, 90), false);
    let large = imageops::resize(&faces.image(2), 300, 300, FilterType::CatmullRom);
    expect(2, faces.add("larger", &large, 80), false);
    let mirrored = imageops::flip_horizontal(&faces.image(3));
    expect(3, faces.add("mirrored", &mirrored, 75), true);
    let bright = imageops::brighten(&faces.image(4), 20);
    expect(4, faces.add("brighter", &bright, 90), false);
    let grey = image::DynamicImage::ImageLuma8(imageops::grayscale(&faces.image(5)));
    expect(5, faces.add("grey", &grey.into_rgb8(), 90), false);
    expected.sort();

    let dataset = faces.load(&near(DEFAULT_NEAR_DISTANCE));
    let found = groups(&dataset);
    assert_eq!(found.len(), expected.len(), "{found:?}");
    for (group, (original, copy, is_mirrored)) in found.iter().zip(&expected) {
        assert_eq!(group.len(), 2, "{group:?}");
        assert_eq!(group[0], (original.as_str(), 0, false));
        let (name, distance, found_mirrored) = group[1];
        assert_eq!((name, found_mirrored), (copy.as_str(), *is_mirrored));
        assert!(distance <= DEFAULT_NEAR_DISTANCE, "{copy}: {distance}");
    }
    // Nothing of it is byte-identical, and without a request there is no search.
    assert!(dataset.identical().is_empty());
    assert_eq!(faces.load(&Options::default()).near, None);
}

#[test]
fn a_copy_and_its_byte_identical_twin_are_one_group() {
    let faces = Faces::draw(10, 6);
    let copy = faces.add("copy", &faces.image(2), 60);
    fs::copy(faces.path(&copy), faces.path("99_twin.jpg")).unwrap();
    fs::copy(faces.path(&faces.drawn[7]), faces.path("98_twin.jpg")).unwrap();
    let dataset = faces.load(&near(DEFAULT_NEAR_DISTANCE));
    let names: Vec<Vec<&str>> = groups(&dataset)
        .into_iter()
        .map(|group| group.into_iter().map(|(name, ..)| name).collect())
        .collect();
    // The twins of the eighth face are the same file and so no near-duplicates.
    assert_eq!(names, [[faces.drawn[2].as_str(), &copy, "99_twin.jpg"]]);
    let identical: Vec<Vec<&str>> = dataset
        .identical()
        .into_iter()
        .map(|group| {
            group
                .into_iter()
                .map(|(_, one)| one.name.as_str())
                .collect()
        })
        .collect();
    assert_eq!(identical.len(), 2);
    assert!(identical.contains(&vec![copy.as_str(), "99_twin.jpg"]));
}

#[test]
fn images_that_show_nothing_are_not_alike() {
    let root = TempDir::new().unwrap();
    for level in 0..20_u8 {
        let mut bytes = Cursor::new(Vec::new());
        RgbImage::from_pixel(40, 40, Rgb([level, 100, 50]))
            .write_to(&mut bytes, ImageFormat::Png)
            .unwrap();
        fs::write(
            root.path().join(format!("{level}_a.png")),
            bytes.into_inner(),
        )
        .unwrap();
    }
    let roots = Roots::new([root.path().to_path_buf()]).unwrap();
    let options = near(MAX_NEAR_DISTANCE);
    let dataset = load(root.path(), &roots, &options, &mut |_, _, _| {}, &|| false).unwrap();
    assert_eq!(dataset.near, Some(Vec::new()));
}

#[test]
fn a_split_by_looks_keeps_copies_together_and_the_default_need_not() {
    let faces = Faces::draw(40, 8);
    for index in 0..40 {
        let name = format!("copy_{index:02}");
        match index % 3 {
            0 => faces.add(&name, &faces.image(index), 50),
            1 => faces.add(&name, &imageops::flip_horizontal(&faces.image(index)), 85),
            _ => {
                let small = imageops::resize(&faces.image(index), 90, 90, FilterType::Triangle);
                faces.add(&name, &small, 85)
            }
        };
    }
    let options = |grouping, seed| Options {
        grouping,
        seed,
        split: SplitFractions {
            val: 0.3,
            test: 0.3,
        },
        ..near(DEFAULT_NEAR_DISTANCE)
    };
    let mut apart = 0;
    let mut digests = BTreeSet::new();
    for seed in 0..3 {
        let options_near = options(SplitGrouping::Near, seed);
        let dataset = faces.load(&options_near);
        let groups = dataset.near.as_ref().unwrap();
        assert_eq!(groups.len(), 40);
        for group in groups {
            let sample = |member: &NearMember| &dataset.split(member.split)[member.index];
            let smallest = group.iter().map(|member| sample(member).content_hash).min();
            let expected = options_near.split.assign(seed, &smallest.unwrap());
            for member in group {
                assert_eq!(member.split, expected, "{}", sample(member).name);
            }
        }
        assert!(dataset.report.warnings.is_empty());
        assert!(!dataset.val.is_empty() && !dataset.test.is_empty());
        // The same with one thread, without a report of the groups, and at the lowest priority.
        let again = faces.load(&Options {
            near: None,
            threads: NonZeroUsize::MIN,
            background: true,
            ..options_near
        });
        assert_eq!(
            (&again.digest, &again.train),
            (&dataset.digest, &dataset.train)
        );
        digests.insert(dataset.digest);

        let exact = faces.load(&options(SplitGrouping::Exact, seed));
        let straddling = exact.near.as_ref().unwrap().iter().filter(|group| {
            let first = group[0].split;
            group.iter().any(|member| member.split != first)
        });
        let straddling = straddling.count();
        apart += straddling;
        let prefix = format!("{straddling} groups of images that look the same lie in different");
        let warnings = &exact.report.warnings;
        assert_eq!(
            straddling > 0,
            warnings.iter().any(|line| line.starts_with(&prefix))
        );
    }
    assert_eq!(digests.len(), 3, "the seed chooses");
    // Two images are in different parts with a probability of 1 - (0.4² + 0.3² + 0.3²) = 0.66, so
    // 79 of 120 are to be expected.
    assert!((60..=100).contains(&apart), "{apart}");
}

#[test]
fn a_given_split_is_kept_whatever_looks_the_same() {
    let faces = Faces::draw(6, 9);
    for (index, split) in ["train", "train", "train", "val", "val", "test"]
        .into_iter()
        .enumerate()
    {
        fs::create_dir_all(faces.path(split)).unwrap();
        let name = &faces.drawn[index];
        fs::rename(faces.path(name), faces.path(&format!("{split}/{name}"))).unwrap();
    }
    let name = format!("train/{}", faces.drawn[0]);
    let image = image::load_from_memory(&fs::read(faces.path(&name)).unwrap()).unwrap();
    image
        .into_rgb8()
        .save(faces.path("test/50_copy.png"))
        .unwrap();
    let dataset = faces.load(&Options {
        grouping: SplitGrouping::Near,
        ..near(DEFAULT_NEAR_DISTANCE)
    });
    assert_eq!(
        (dataset.train.len(), dataset.val.len(), dataset.test.len()),
        (3, 2, 2)
    );
    let parts: Vec<Split> = dataset.near.as_ref().unwrap()[0]
        .iter()
        .map(|member| member.split)
        .collect();
    assert_eq!(parts, [Split::Test, Split::Train]);
    assert_eq!(
        dataset.report.warnings.len(),
        1,
        "{:?}",
        dataset.report.warnings
    );
}

#[test]
fn a_check_reports_what_would_fail_a_training_and_continues() {
    let faces = Faces::draw(4, 10);
    for number in 0..4 {
        fs::write(
            faces.path(&format!("30_damaged_{number}.png")),
            b"\x89PNG\r\n\x1a\nno more",
        )
        .unwrap();
    }
    let dataset = faces.load(&Options {
        purpose: Purpose::Check,
        split: SplitFractions {
            val: 0.0,
            test: 0.0,
        },
        ..Options::default()
    });
    assert_eq!((dataset.report.accepted, dataset.report.rejected), (4, 4));
    let warnings = &dataset.report.warnings;
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(
        warnings[0].starts_with("a training would fail: 4 of 8 images")
            && warnings[1].contains("leaves none of 4 images for validation"),
        "{warnings:?}"
    );
}

/// An image that is damaged inside is found where images are decoded.
#[test]
fn looking_at_images_finds_what_their_headers_hide() {
    let faces = Faces::draw(5, 11);
    let path = faces.path("50_damaged.png");
    faces.image(0).save(&path).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 100].fill(0);
    fs::write(&path, bytes).unwrap();
    let headers = faces.load(&Options {
        near: None,
        ..near(0)
    });
    assert_eq!(headers.report.rejected, 0);
    let looked = faces.load(&near(DEFAULT_NEAR_DISTANCE));
    assert_eq!(looked.report.rejects[0].reason, RejectReason::Corrupt);
    assert_eq!(looked.report.rejects[0].examples, ["50_damaged.png"]);
}

#[test]
fn a_search_among_too_many_images_is_refused_with_the_remedy() {
    let check = |options: &Options, split_given, images| {
        let plan = grouping::SearchPlan::new(options, split_given);
        plan.check_count(std::path::Path::new("/faces"), images)
    };
    let report = near(DEFAULT_NEAR_DISTANCE);
    assert!(check(&report, false, 100_000).is_ok());
    assert_eq!(
        check(&report, false, 100_001).unwrap_err().to_string(),
        "/faces holds 100001 images, and a search for near-duplicates compares at most 100000; \
         set skip_near_duplicates, or use a smaller dataset"
    );
    let split = Options {
        grouping: SplitGrouping::Near,
        ..Options::default()
    };
    let error = check(&split, false, 100_001).unwrap_err().to_string();
    assert!(error.contains("set split_grouping to EXACT"), "{error}");
    // A given split and no report: there is no search.
    assert!(check(&split, true, 1_000_000).is_ok());
}
