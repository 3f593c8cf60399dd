//! Which files of a directory are images, and which parts its sub-directories are.

use super::*;

/// For few images whose parts do not matter.
fn unsplit() -> Options {
    Options {
        purpose: Purpose::Evaluation,
        ..Options::default()
    }
}

#[test]
fn the_content_decides_about_files_whose_extension_is_not_known() {
    let fixture = Fixture::with_images(&[
        "20_a.jpg",
        "21_b.JPG",
        "22_c.jfif",
        "23_d.jpe",
        "24_e.pjpeg",
        "25_f.jpg_large",
        "26_g.jpg ",
        "27_0_0_20170103000000001",
        "28_h.photo",
    ]);
    let dataset = fixture.load(&unsplit()).unwrap();
    assert_eq!((dataset.report.accepted, dataset.report.ignored), (9, 0));
    assert_eq!(dataset.report.warnings, Vec::<String>::new());
}

#[test]
fn files_that_are_not_images_are_ignored_with_a_warning_unless_they_are_well_known() {
    let fixture = Fixture::with_images(&["train/20_a.png", "train/21_b.png", "val/22_c.png"]);
    for name in [
        "Thumbs.db",
        "desktop.ini",
        ".DS_Store",
        "train/._20_a.png",
        "notes.txt",
        "epoch-12.pth",
        "labels.csv",
        "Icon\r",
    ] {
        fixture.put(name, b"BM is how this text begins");
    }
    assert_eq!(fixture.load_tolerant().report.ignored, 8);
    assert_eq!(
        fixture.load_tolerant().report.warnings,
        Vec::<String>::new()
    );

    // With and without an age and a part, and larger than an image may be.
    fixture.put("train/23_d.heic", b"\0\0\0\x18ftypheic");
    fixture.put("val/24_e.gif", b"GIF89a\x01\0\x01\0\0\0\0;");
    fixture.put("LICENSE", b"BM is how this text begins");
    fixture.put("train/25_model", &[0; 3_000]);
    fixture.put("train/26_empty", b"");
    let options = Options {
        max_reject_share: 0.0,
        limits: crate::imaging::Limits {
            max_bytes: 2_000,
            ..Default::default()
        },
        ..Options::default()
    };
    let dataset = fixture.load(&options).unwrap();
    assert_eq!((dataset.report.ignored, dataset.report.rejected), (13, 0));
    let [warning] = dataset.report.warnings.as_slice() else {
        panic!("{:?}", dataset.report.warnings);
    };
    assert!(
        warning.starts_with("5 files are ignored because the content is not a JPEG"),
        "{warning}"
    );
    assert!(
        warning.contains("LICENSE") && warning.contains("train/23_d.heic"),
        "{warning}"
    );
}

#[test]
fn images_of_unknown_extension_are_rejected_for_the_same_reasons_as_others() {
    let fixture = Fixture::with_images(&["train/20_a.png", "train/21_b.png", "val/22_c.png"]);
    fixture.put("train/anna", &png(7));
    fixture.put("train/200_old", &png(8));
    fixture.put("23_beside", &png(9));
    fixture.put("train/24_cut", &png(10)[..20]);
    let dataset = fixture.load_tolerant();
    assert_eq!(
        rejects(&dataset),
        [
            ("no_age", 1, vec!["train/anna"]),
            ("age_out_of_range", 1, vec!["train/200_old"]),
            ("no_part", 1, vec!["23_beside"]),
            ("corrupt", 1, vec!["train/24_cut"]),
        ]
    );
}

#[test]
fn nothing_outside_of_the_roots_is_opened_to_see_its_content() {
    let fixture = Fixture::with_images(&["train/20_a.png", "train/21_b.png", "val/22_c.png"]);
    let outside = TempDir::new().unwrap();
    let secret = outside.path().join("secret");
    fs::write(&secret, png(7)).unwrap();
    symlink(&secret, fixture.directory().join("train/anna")).unwrap();
    symlink(&secret, fixture.directory().join("train/30_anna")).unwrap();
    let dataset = fixture.load_tolerant();
    // Without an age it could only be a reject if its content were known.
    assert_eq!(dataset.report.ignored, 1);
    assert_eq!(
        rejects(&dataset),
        [("outside_root", 1, vec!["train/30_anna"])]
    );
}

#[test]
fn a_copy_beside_its_original_is_ignored_with_a_warning() {
    let fixture = Fixture::with_images(&[
        "20_a.png",
        "20_a.png_original",
        "20_a.png.orig",
        "20_a.png~",
        "21_b.png_original",
        "22_c.png",
        "22_c.png.chip.png",
    ]);
    let dataset = fixture.load(&unsplit()).unwrap();
    assert_eq!((dataset.report.accepted, dataset.report.ignored), (4, 3));
    assert_eq!(dataset.report.warnings.len(), 1);
    assert!(
        dataset.report.warnings[0].starts_with("3 files are ignored because the name extends"),
        "{:?}",
        dataset.report.warnings
    );
}

#[test]
fn a_directory_without_an_image_that_can_be_read_names_what_is_there() {
    let fixture = Fixture::new();
    fixture.put("20_a.heic", b"\0\0\0\x18ftypheic");
    let message = fixture.load(&Options::default()).unwrap_err().to_string();
    assert!(
        message.contains("holds no usable image (1 other files")
            && message.contains("for example 20_a.heic"),
        "{message}"
    );
}

/// Images of the three parts of a dataset with these directories: 3, 2 and 1.
fn counts(directories: [&str; 3]) -> Result<(Dataset, [usize; 3]), Error> {
    let [train, val, test] = directories;
    let fixture = Fixture::with_images(&[
        &format!("{train}/20_a.png"),
        &format!("{train}/21_b.png"),
        &format!("{train}/22_c.png"),
        &format!("{val}/23_d.png"),
        &format!("{val}/24_e.png"),
        &format!("{test}/25_f.png"),
    ]);
    let dataset = fixture.load(&Options::default())?;
    let counts = Split::ALL.map(|split| dataset.split(split).len());
    Ok((dataset, counts))
}

#[test]
fn parts_are_recognised_by_the_names_that_people_give_them() {
    for directories in [
        ["train", "val", "test"],
        ["TRAINING", "Validation", "Testing"],
        ["train", "dev", "test"],
        ["train", "val", "eval"],
        ["train_set", "val_set", "test_set"],
        ["faces/train", "faces/valid", "faces/test"],
        ["a/b/Train-Set", "a/b/Dev-Set", "a/b/Test-Set"],
    ] {
        let (dataset, counts) = counts(directories).unwrap();
        assert_eq!(counts, [3, 2, 1], "{directories:?}");
        assert_eq!(dataset.report.split, SplitOrigin::Given);
    }
}

#[test]
fn parts_that_cannot_be_told_apart_are_refused_and_doubtful_ones_have_a_warning() {
    let message = counts(["train", "val", "dev"]).unwrap_err().to_string();
    assert!(
        message.contains("\"val\" and \"dev\" both name the validation split; rename"),
        "{message}"
    );
    let (dataset, parts) = counts(["train", "val", "valid"]).unwrap();
    assert_eq!(parts, [3, 3, 0]);
    assert!(
        dataset.report.warnings[0].contains("\"val\" and \"valid\" are used together"),
        "{:?}",
        dataset.report.warnings
    );
    let fixture = Fixture::new();
    for number in 0..40 {
        let split = ["my_train", "my_test"][number as usize % 2];
        fixture.put(&format!("{split}/{number}_a.png"), &png(number));
    }
    let dataset = fixture.load(&Options::default()).unwrap();
    assert_eq!(dataset.report.split, SplitOrigin::Hashed);
    assert!(
        dataset.report.warnings[0].contains("named like splits: my_test, my_train"),
        "{:?}",
        dataset.report.warnings
    );
}
