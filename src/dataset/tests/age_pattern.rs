//! Ages from the paths of images: by a pattern, and by default with doubts.

use super::*;

fn options(pattern: &str) -> Options {
    Options {
        age_pattern: AgePattern::parse(pattern).unwrap(),
        split: SplitFractions {
            val: 0.3,
            test: 0.0,
        },
        ..Options::default()
    }
}

fn ages(dataset: &Dataset) -> Vec<(String, f32)> {
    let samples = Split::ALL
        .into_iter()
        .flat_map(|split| dataset.split(split));
    let mut ages: Vec<_> = samples
        .map(|sample| (sample.name.clone(), sample.age))
        .collect();
    ages.sort_by(|one, other| one.0.cmp(&other.0));
    ages
}

#[test]
fn a_pattern_reads_the_age_from_the_path_below_the_dataset() {
    let fixture = Fixture::with_images(&[
        "train/21/111/109-0.png",
        "train/33/112/7-1.png",
        "val/40/111/8-1.png",
        "val/200/111/9-1.png",
        "val/40/113/9-1.png",
        "val/label.png",
    ]);
    let tolerant = Options {
        max_reject_share: 1.0,
        ..options("afad")
    };
    let dataset = fixture.load(&tolerant).unwrap();
    let expected = [
        ("train/21/111/109-0.png", 21.0),
        ("train/33/112/7-1.png", 33.0),
        ("val/40/111/8-1.png", 40.0),
    ];
    assert_eq!(
        ages(&dataset),
        expected.map(|(name, age)| (name.to_owned(), age))
    );
    assert_eq!(
        rejects(&dataset),
        [
            (
                "no_age",
                2,
                vec![
                    "val/label.png: age_pattern \"afad\" does not match",
                    "val/40/113/9-1.png: age_pattern \"afad\" does not match"
                ]
            ),
            ("age_out_of_range", 1, vec!["val/200/111/9-1.png: age 200"]),
        ]
    );
    assert_eq!(dataset.report.warnings, [""; 0]);
}

#[test]
fn the_pattern_of_utkface_is_the_default_reading_without_its_doubts() {
    let fixture = Fixture::new();
    for number in 0..60 {
        fixture.put(&format!("{number}_x.png"), &png(number));
    }
    fixture.put("61_1_0_20170103230340961.png", &png(61));
    let read = fixture.load(&options("")).unwrap();
    let said = fixture.load(&options("utkface")).unwrap();
    assert_eq!(read.digest, said.digest);
    assert!(
        read.report.warnings[0].contains("as running numbers"),
        "{:?}",
        read.report.warnings
    );
    assert_eq!(said.report.warnings, [""; 0]);
    let samples = Split::ALL.into_iter().flat_map(|split| said.split(split));
    let labels: Vec<_> = samples
        .filter_map(|sample| sample.labels.get("gender"))
        .collect();
    assert_eq!(labels, ["1"]);
}

#[test]
fn a_refusal_names_the_pattern_of_the_names() {
    let fixture = Fixture::new();
    for number in 0..20 {
        fixture.put(
            &format!("{:03}A{:02}.JPG", number + 1, number * 3),
            &png(number),
        );
    }
    let refused = fixture.load(&options("")).unwrap_err().to_string();
    assert!(refused.contains("FG-NET (001A43a.JPG)"), "{refused}");
    assert!(
        refused.ends_with("set age_pattern to \"fgnet\""),
        "{refused}"
    );
    let dataset = fixture.load(&options("fgnet")).unwrap();
    assert_eq!(dataset.report.accepted, 20);
    assert_eq!(ages(&dataset)[19], ("020A57.JPG".to_owned(), 57.0));
}

#[test]
fn a_pattern_and_columns_are_for_one_kind_of_dataset_each() {
    let fixture = Fixture::with_images(&["1_a.png", "2_a.png"]);
    let columns = Options {
        columns: ColumnNames {
            age: "years".to_owned(),
            ..ColumnNames::default()
        },
        ..Options::default()
    };
    let check = |options: &Options| check_source(&fixture.directory(), &fixture.roots(), options);
    assert!(check(&options("agedb")).is_ok());
    let refused = check(&columns).unwrap_err();
    assert!(
        matches!(refused, Error::ColumnsOfDirectory { .. }),
        "{refused}"
    );
    assert!(matches!(
        fixture.load(&columns),
        Err(Error::ColumnsOfDirectory { .. })
    ));

    fixture.put("manifest.csv", b"path,years\n1_a.png,1\n");
    assert!(check(&columns).is_ok());
    let refused = check(&options("agedb")).unwrap_err();
    assert!(
        matches!(refused, Error::PatternOfManifest { .. }),
        "{refused}"
    );
    let refused = check(&Options::default()).unwrap_err();
    assert!(matches!(refused, Error::MissingColumns { .. }), "{refused}");
}
