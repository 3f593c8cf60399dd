//! Through [`load`], on directories made for each test, and against numbers of
//! `tests/fixtures/generate/make_dataset_fixtures.py`.

use std::cell::Cell;
use std::num::NonZeroUsize;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use fs_err as fs;
use image::{ImageFormat, Rgb, RgbImage};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::{digest::digest, report::AgeBand, *};

mod age_pattern;
mod files;
mod labels;
mod manifest;
mod near;
mod roots;
mod spreadsheet;

impl Labels {
    fn get(&self, name: &str) -> Option<&str> {
        let mut labels = self.iter();
        labels.find_map(|(known, value)| (known == name).then_some(value))
    }
}

/// A small PNG whose content is different for each number.
fn png(number: u32) -> Vec<u8> {
    let [_, r, g, b] = number.to_be_bytes();
    let mut bytes = std::io::Cursor::new(Vec::new());
    RgbImage::from_pixel(4, 3, Rgb([r, g, b]))
        .write_to(&mut bytes, ImageFormat::Png)
        .unwrap();
    bytes.into_inner()
}

/// A root with a directory `faces` in it, and files put there.
struct Fixture {
    root: TempDir,
}

impl Fixture {
    fn new() -> Self {
        let root = TempDir::new().unwrap();
        fs::create_dir(root.path().join("faces")).unwrap();
        Self { root }
    }

    fn with_images(names: &[&str]) -> Self {
        let fixture = Self::new();
        for (number, name) in names.iter().enumerate() {
            fixture.put(name, &png(number as u32));
        }
        fixture
    }

    fn directory(&self) -> PathBuf {
        self.root.path().join("faces")
    }

    fn put(&self, name: &str, content: &[u8]) {
        let path = self.directory().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn roots(&self) -> Roots {
        Roots::new([self.root.path().to_path_buf()]).unwrap()
    }

    fn load(&self, options: &Options) -> Result<Dataset, Error> {
        load_quietly(&self.directory(), &self.roots(), options)
    }

    fn load_tolerant(&self) -> Dataset {
        self.load(&Options {
            max_reject_share: 1.0,
            ..Options::default()
        })
        .unwrap()
    }
}

fn load_quietly(path: &Path, roots: &Roots, options: &Options) -> Result<Dataset, Error> {
    load(path, roots, options, &mut |_, _, _| {}, &|| false)
}

fn names(samples: &[Sample]) -> Vec<&str> {
    samples.iter().map(|sample| sample.name.as_str()).collect()
}

fn rejects(dataset: &Dataset) -> Vec<(&'static str, u64, Vec<&str>)> {
    let counts = dataset.report.rejects.iter();
    counts
        .map(|reject| {
            let examples = reject.examples.iter().map(String::as_str).collect();
            (reject.reason.label(), reject.count, examples)
        })
        .collect()
}

#[derive(Deserialize)]
struct Expected {
    splits: Vec<ExpectedSplit>,
    orders: Vec<ExpectedOrder>,
    digest: String,
    val_digest: String,
}

#[derive(Deserialize)]
struct ExpectedSplit {
    seed: u64,
    val: f64,
    test: f64,
    parts: Vec<String>,
}

#[derive(Deserialize)]
struct ExpectedOrder {
    n: usize,
    seed: u64,
    epoch: u64,
    order: Vec<u32>,
}

fn expected() -> Expected {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/dataset/expected.json");
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn the_split_of_an_image_is_the_one_that_python_computes() {
    for case in expected().splits {
        let fractions = SplitFractions {
            val: case.val,
            test: case.test,
        };
        for (index, expected) in case.parts.iter().enumerate() {
            let hash = Sha256::digest(format!("image {index}")).into();
            assert_eq!(
                fractions.assign(case.seed, &hash).label(),
                expected,
                "{index} {fractions:?}"
            );
        }
    }
}

#[test]
fn the_order_of_an_epoch_is_the_one_that_python_computes() {
    for case in expected().orders {
        assert_eq!(epoch_order(case.n, case.seed, case.epoch, 0), case.order);
    }
}

#[test]
fn every_epoch_visits_every_sample_once_in_another_order() {
    let mut first = epoch_order(1000, 5, 1, 0);
    assert_ne!(first, epoch_order(1000, 5, 2, 0));
    assert_ne!(first, epoch_order(1000, 6, 1, 0));
    assert_ne!(first, epoch_order(1000, 5, 1, 1));
    first.sort_unstable();
    assert_eq!(first, (0..1000).collect::<Vec<u32>>());
}

#[test]
fn the_digest_is_the_one_that_python_computes() {
    let sample = |name: &str, content: &str, age| Sample {
        name: name.to_owned(),
        path: PathBuf::from("/anywhere").join(name),
        age,
        labels: Labels::default(),
        bytes: content.len() as u64,
        content_hash: Sha256::digest(content).into(),
    };
    let train = [sample("train/b.jpg", "bee", 34.5)];
    let val = [sample("val/é.jpg", "eh", 7.0)];
    let test = [sample("test/a.jpg", "ah", 100.0)];
    let parts: [(Split, &[Sample]); 3] = [
        (Split::Train, &train),
        (Split::Val, &val),
        (Split::Test, &test),
    ];
    assert_eq!(digest(&parts), expected().digest);
    assert_eq!(digest(&parts[1..2]), expected().val_digest);
}

#[test]
fn directories_of_a_split_are_kept_and_sorted_with_labels_and_statistics() {
    let fixture = Fixture::with_images(&[
        "train/50_1_3_20170103230340961.jpg.chip.jpg",
        "train/20_0_1_20170103230340961.png",
        "train/deep/30_0.png",
        "valid/34.5_x.png",
        "test/9_x.png",
        "test/80_x.png",
    ]);
    let dataset = fixture.load(&Options::default()).unwrap();
    assert_eq!(
        names(&dataset.train),
        [
            "train/20_0_1_20170103230340961.png",
            "train/50_1_3_20170103230340961.jpg.chip.jpg",
            "train/deep/30_0.png",
        ]
    );
    assert_eq!(names(&dataset.val), ["valid/34.5_x.png"]);
    assert_eq!(dataset.val[0].age, 34.5);
    assert_eq!(dataset.train[1].labels.get("gender"), Some("1"));
    assert_eq!(dataset.train[1].labels.get("race"), Some("3"));
    assert!(dataset.train[2].labels.iter().next().is_none());

    let report = &dataset.report;
    assert_eq!(report.source, Source::Directory);
    assert_eq!(report.split, SplitOrigin::Given);
    assert_eq!(
        (report.considered, report.accepted, report.rejected),
        (6, 6, 0)
    );
    let age = report.train.age.unwrap();
    // Of 20, 30 and 50: the mean is 100 / 3, the squares sum to 3800, the variance is 3800 / 3 -
    // 10000 / 9 = 1400 / 9.
    assert!((age.mean - 33.333_333).abs() < 1e-5);
    assert!((age.standard_deviation - 12.472_191).abs() < 1e-5);
    assert_eq!((age.min, age.max), (20.0, 50.0));
    assert_eq!(report.ages.len(), 9);
    assert_eq!(
        report.ages[0],
        AgeBand {
            from: 0,
            train: 0,
            val: 0,
            test: 1
        }
    );
    assert_eq!(
        report.ages[3],
        AgeBand {
            from: 30,
            train: 1,
            val: 1,
            test: 0
        }
    );
}

#[test]
fn a_directory_without_a_split_is_divided_by_content_and_seed_alone() {
    let fixture = Fixture::new();
    for number in 0..200 {
        fixture.put(&format!("{}_{number}.png", number % 90), &png(number));
    }
    let options = Options {
        split: SplitFractions {
            val: 0.2,
            test: 0.2,
        },
        ..Options::default()
    };
    let dataset = fixture.load(&options).unwrap();
    assert_eq!(dataset.report.split, SplitOrigin::Hashed);
    for (count, share) in [
        (dataset.train.len(), 0.6),
        (dataset.val.len(), 0.2),
        (dataset.test.len(), 0.2),
    ] {
        // Three standard deviations of a binomial of 200.
        assert!((count as f64 - 200.0 * share).abs() < 21.0, "{count}");
    }

    let one_thread = Options {
        threads: NonZeroUsize::MIN,
        ..options.clone()
    };
    let again = fixture.load(&one_thread).unwrap();
    assert_eq!(again.digest, dataset.digest);
    assert_eq!(again.train, dataset.train);

    let other_seed = Options { seed: 1, ..options };
    let other = fixture.load(&other_seed).unwrap();
    assert_ne!(other.digest, dataset.digest);
    assert_ne!(names(&other.val), names(&dataset.val));
}

#[test]
fn identical_images_stay_together_whatever_their_names() {
    let fixture = Fixture::new();
    for number in 0..60 {
        fixture.put(&format!("20_{number}.png"), &png(number));
        fixture.put(&format!("30_copy_of_{number}.png"), &png(number));
    }
    let dataset = fixture.load(&Options::default()).unwrap();
    for split in [&dataset.train, &dataset.val, &dataset.test] {
        assert_eq!(split.len() % 2, 0);
        for sample in split {
            let twins = split
                .iter()
                .filter(|other| other.content_hash == sample.content_hash);
            assert_eq!(twins.count(), 2, "{}", sample.name);
        }
    }
    let duplicates = &dataset.report.duplicates;
    assert_eq!((duplicates.groups, duplicates.images), (60, 120));
    assert_eq!(
        (duplicates.straddling, duplicates.conflicting_ages),
        (0, 60)
    );
    assert_eq!(
        duplicates.conflicting_examples[0],
        ["20: 20_0.png", "30: 30_copy_of_0.png"]
    );
    assert_eq!(duplicates.conflicting_examples.len(), 5);
    assert_eq!(dataset.report.warnings.len(), 1);
}

#[test]
fn identical_images_across_given_parts_are_named_and_kept() {
    let fixture = Fixture::with_images(&[
        "train/1_a.png",
        "train/2_b.png",
        "val/3_c.png",
        "val/4_d.png",
    ]);
    fixture.put("val/1_a_again.png", &png(0));
    let dataset = fixture.load(&Options::default()).unwrap();
    assert_eq!(dataset.val.len(), 3);
    let duplicates = &dataset.report.duplicates;
    assert_eq!((duplicates.groups, duplicates.straddling), (1, 1));
    assert_eq!(
        duplicates.straddling_examples,
        [["train: train/1_a.png", "val: val/1_a_again.png"]]
    );
    assert!(dataset.report.warnings[0].contains("byte-identical"));
}

#[test]
fn what_cannot_be_used_is_counted_by_reason_and_what_is_no_image_is_ignored() {
    let fixture = Fixture::with_images(&[
        "train/1_a.png",
        "train/2_b.png",
        "val/3_c.png",
        "train/anna.png",
        "train/200_old.png",
        "5_beside.png",
        "extra/6_beside.png",
        "train/.7_hidden.png",
        "train/.hidden/8_a.png",
    ]);
    fixture.put("Thumbs.db", b"x");
    fixture.put("train/readme.md", b"x");
    fixture.put("train/9_empty.jpg", b"");
    fixture.put("train/10_text.jpg", b"this is not an image at all");
    fixture.put("train/11_cut.png", &png(99)[..20]);
    fixture.put("train/12_gif.jpg", b"GIF89a\x01\0\x01\0\0\0\0;");
    fixture.put("train/13_long.png", &[0; 3000]);
    symlink(
        "nowhere.png",
        fixture.directory().join("train/14_broken.png"),
    )
    .unwrap();
    let options = Options {
        max_reject_share: 1.0,
        limits: crate::imaging::Limits {
            max_bytes: 2000,
            ..Default::default()
        },
        ..Options::default()
    };
    let dataset = fixture.load(&options).unwrap();
    assert_eq!((dataset.train.len(), dataset.val.len()), (2, 1));
    assert_eq!(
        rejects(&dataset),
        [
            ("no_age", 1, vec!["train/anna.png"]),
            ("age_out_of_range", 1, vec!["train/200_old.png"]),
            ("no_part", 2, vec!["5_beside.png", "extra/6_beside.png"]),
            ("missing", 1, vec!["train/14_broken.png"]),
            ("empty", 1, vec!["train/9_empty.jpg"]),
            ("too_large", 1, vec!["train/13_long.png"]),
            (
                "unsupported_format",
                2,
                vec!["train/10_text.jpg", "train/12_gif.jpg"]
            ),
            ("corrupt", 1, vec!["train/11_cut.png"]),
        ]
    );
    assert_eq!(dataset.report.ignored, 4);
}

#[test]
fn decoding_finds_damage_that_the_header_hides() {
    let fixture = Fixture::with_images(&["train/1_a.png", "train/2_b.png", "val/3_c.png"]);
    let mut damaged = png(7);
    let middle = damaged.len() - 20;
    damaged[middle] ^= 0xFF;
    fixture.put("train/4_damaged.png", &damaged);
    let options = Options {
        max_reject_share: 1.0,
        ..Options::default()
    };
    assert_eq!(fixture.load(&options).unwrap().report.rejected, 0);
    let decoding = Options {
        verify: Verify::Decode,
        ..options
    };
    let dataset = fixture.load(&decoding).unwrap();
    assert_eq!(
        rejects(&dataset),
        [("corrupt", 1, vec!["train/4_damaged.png"])]
    );
}

#[test]
fn too_many_rejects_are_an_error_that_names_them() {
    let fixture = Fixture::with_images(&[
        "train/1_a.png",
        "train/2_b.png",
        "val/3_c.png",
        "val/4_d.png",
        "train/anna.png",
    ]);
    // One of five is exactly the default share of 0.2, and allowed.
    assert!(fixture.load(&Options::default()).is_ok());
    fixture.put("train/bert.png", &png(9));
    let message = fixture.load(&Options::default()).unwrap_err().to_string();
    assert!(
        message.contains("2 of 6 images")
            && message.contains("2 no_age (train/anna.png, train/bert.png)"),
        "{message}"
    );
}

#[test]
fn what_cannot_be_trained_on_is_an_error_that_says_what_to_do() {
    let cases: [(&[&str], &str); 4] = [
        (&[], "holds no usable image"),
        (
            &["train/1_a.png", "val/2_b.png"],
            "leaves 1 of 2 images for training",
        ),
        (
            &["val/1_a.png", "val/2_b.png"],
            "leaves 0 of 2 images for training",
        ),
        (&["train/1_a.png", "train/2_b.png"], "add a directory val"),
    ];
    for (names, expected) in cases {
        let message = Fixture::with_images(names)
            .load(&Options::default())
            .unwrap_err()
            .to_string();
        assert!(message.contains(expected), "{message}");
    }
    let no_fraction = Options {
        split: SplitFractions {
            val: 0.0,
            test: 0.0,
        },
        ..Options::default()
    };
    let unsplit = Fixture::with_images(&["1_a.png", "2_b.png", "3_c.png"]);
    let message = unsplit.load(&no_fraction).unwrap_err().to_string();
    assert!(
        message.contains("raise the validation fraction"),
        "{message}"
    );
}

#[test]
fn options_out_of_range_are_refused_by_name() {
    let fixture = Fixture::with_images(&["1_a.png", "2_b.png"]);
    let cases = [
        (
            Options {
                split: SplitFractions {
                    val: 0.6,
                    test: 0.4,
                },
                ..Options::default()
            },
            "split",
        ),
        (
            Options {
                max_reject_share: f64::NAN,
                ..Options::default()
            },
            "max_reject_share",
        ),
        (
            Options {
                ages: AgeRange { min: 5.0, max: 1.0 },
                ..Options::default()
            },
            "ages",
        ),
        (
            Options {
                max_images: usize::MAX,
                ..Options::default()
            },
            "max_images",
        ),
        (
            Options {
                near: Some(41),
                ..Options::default()
            },
            "near",
        ),
    ];
    for (options, expected) in cases {
        let error = fixture.load(&options).unwrap_err();
        assert!(
            matches!(error, Error::Option { name, .. } if name == expected),
            "{error}"
        );
    }
    let few = Options {
        max_images: 1,
        ..Options::default()
    };
    assert!(matches!(
        fixture.load(&few).unwrap_err(),
        Error::TooManyImages { limit: 1, .. }
    ));
}

#[test]
fn progress_ends_at_the_total_and_a_cancel_ends_the_reading() {
    let fixture = Fixture::with_images(&["train/1_a.png", "train/2_b.png", "val/3_c.png"]);
    let mut last = (Phase::Compare, 0, 0);
    load(
        &fixture.directory(),
        &fixture.roots(),
        &Options::default(),
        &mut |step, scanned, total| last = (step, scanned, total),
        &|| false,
    )
    .unwrap();
    assert_eq!(last, (Phase::Scan, 3, 3));

    // Asked first while listing three directories, then while scanning.
    for asked_before_cancel in [0, 3] {
        let asked = Cell::new(0);
        let result = load(
            &fixture.directory(),
            &fixture.roots(),
            &Options::default(),
            &mut |_, _, _| {},
            &|| asked.replace(asked.get() + 1) >= asked_before_cancel,
        );
        assert!(matches!(result, Err(Error::Cancelled)));
    }
}

#[test]
fn a_file_that_is_no_manifest_is_not_a_dataset() {
    let fixture = Fixture::with_images(&["1_a.png"]);
    let file = fixture.directory().join("1_a.png");
    assert!(matches!(
        load_quietly(&file, &fixture.roots(), &Options::default()),
        Err(Error::NotADataset { .. })
    ));
}

/// On the real UTKFace images, where they are: `VISAGE_UTKFACE`, or `../shared/data/utkface` beside
/// the repository.
#[test]
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
#[expect(clippy::disallowed_methods, reason = "a test finds its images by it")]
fn utkface_is_read_completely() {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/utkface");
    let directory = std::env::var_os("VISAGE_UTKFACE").map_or(beside, PathBuf::from);
    if !directory.is_dir() {
        eprintln!(
            "skipped: {} does not exist; set VISAGE_UTKFACE to the directory with UTKFace's train and val",
            directory.display()
        );
        return;
    }
    let roots = Roots::new([directory.clone()]).unwrap();
    let directory = fs::canonicalize(directory).unwrap();
    let dataset = load_quietly(&directory, &roots, &Options::default()).unwrap();
    assert_eq!((dataset.train.len(), dataset.val.len()), (18_928, 2_344));
    assert!(dataset.test.is_empty());
    assert_eq!(dataset.report.rejected, 0, "{:?}", rejects(&dataset));
    let warnings = &dataset.report.warnings;
    let has_doubt = warnings
        .iter()
        .any(|warning| warning.contains("age_pattern"));
    assert!(!has_doubt, "{warnings:?}");
    let labelled = |label: &str| {
        let samples = dataset.train.iter().chain(&dataset.val);
        samples
            .filter(|sample| sample.labels.get(label).is_some())
            .count()
    };
    // Two names lack one of the two numbers, and which one is unknown; the first is taken for the
    // gender.
    assert_eq!((labelled("gender"), labelled("race")), (21_272, 21_270));
}
