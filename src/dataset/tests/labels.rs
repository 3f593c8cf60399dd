//! Columns of a manifest that are labels, and columns that are not, and its split column.

use super::*;

/// A manifest of `rows` images with the columns `path,age` and these further ones.
fn with_columns(rows: u32, header: &str, cells: impl Fn(u32) -> String) -> Fixture {
    let fixture = Fixture::new();
    let mut table = format!("path,age,{header}\n");
    for row in 0..rows {
        fixture.put(&format!("{row}.png"), &png(row));
        table += &format!("{row}.png,{},{}\n", 20 + row % 60, cells(row));
    }
    fixture.put("manifest.csv", table.as_bytes());
    fixture
}

#[test]
fn columns_that_define_no_groups_are_left_out_of_the_labels_and_listed() {
    let fixture = with_columns(40, "Unnamed: 0,gender,name,bbox,camera,pixels", |row| {
        let pixels = format!("{row} ").repeat(2304);
        format!(
            "{row},{},person {row},\"[{row}, 2, 30, 40]\",camera {},{pixels}",
            ["f", "m"][row as usize % 2],
            row % 3
        )
    });
    let dataset = fixture.load(&Options::default()).unwrap();
    assert_eq!(dataset.report.accepted, 40);
    for sample in dataset.train.iter().chain(&dataset.val) {
        let labels: Vec<&str> = sample.labels.iter().map(|(name, _)| name).collect();
        assert_eq!(labels, ["camera", "gender"]);
    }
    let left_out = &dataset.report.left_out_columns;
    let found: Vec<_> = left_out
        .listed
        .iter()
        .map(|column| (column.name.as_str(), column.reason.label()))
        .collect();
    assert_eq!(
        found,
        [
            ("unnamed: 0", "unnamed"),
            ("name", "unique_values"),
            ("bbox", "number_lists"),
            ("pixels", "long_values"),
        ]
    );
    assert_eq!(left_out.count, 4);
}

#[test]
fn a_split_column_may_use_common_words_and_other_words_are_named() {
    for [train, val, test] in [
        ["train", "val", "test"],
        ["Training", "validation", "TESTING"],
        ["train", "dev", "eval"],
        ["train_set", "dev-set", "testset"],
    ] {
        let word = |row| [train, train, val, test][row as usize % 4].to_owned();
        let dataset = with_columns(8, "split", word)
            .load(&Options::default())
            .unwrap();
        let counts = Split::ALL.map(|split| dataset.split(split).len());
        assert_eq!(counts, [4, 2, 2], "{train} {val} {test}");
    }
    let word = |row| ["train", "val", "fold 3"][row as usize % 3].to_owned();
    let dataset = with_columns(9, "split", word).load_tolerant();
    let [(reason, count, examples)] = &rejects(&dataset)[..] else {
        panic!("{:?}", rejects(&dataset));
    };
    assert_eq!((*reason, *count), ("bad_row", 3));
    assert!(
        examples[0].starts_with("line 4: the split must be train, training,")
            && examples[0].ends_with("got \"fold 3\""),
        "{examples:?}"
    );
}

#[test]
fn rows_that_are_rejected_for_their_fields_decide_nothing_about_a_column() {
    // The comma in the name moves a text into the column of the camera.
    let camera = |row| match row % 3 {
        0 => format!("anna,{}", ["left", "right"][row as usize % 2]),
        _ => format!("{row} Smith, John,left"),
    };
    let dataset = with_columns(120, "name,camera", camera).load_tolerant();
    assert_eq!(rejects(&dataset)[0].1, 80);
    let left_out = &dataset.report.left_out_columns;
    assert_eq!(left_out.count, 0, "{left_out:?}");
}

#[test]
fn a_split_column_with_two_words_for_one_part_is_refused() {
    let word = |row| ["train", "train", "val", "dev"][row as usize % 4].to_owned();
    let error = with_columns(8, "split", word)
        .load(&Options::default())
        .unwrap_err();
    let message = error.to_string();
    assert!(
        message.contains("manifest.csv is ambiguous: \"val\" and \"dev\" both name the validation"),
        "{message}"
    );
}
