//! Manifests as spreadsheets and other systems write them.

use super::*;

const IMAGES: [&str; 3] = ["in/a.png", "in/b, c.png", "Zoë.png"];

/// Everything is validated on but the first image, so that the parts are known.
fn read(fixture: &Fixture, table: &[u8], options: &Options) -> Dataset {
    fixture.put("manifest.csv", table);
    let dataset = fixture.load(options);
    dataset.unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(table)))
}

fn rows(dataset: &Dataset) -> Vec<(&str, f32)> {
    let samples = Split::ALL
        .into_iter()
        .flat_map(|split| dataset.split(split));
    samples
        .map(|sample| (sample.name.as_str(), sample.age))
        .collect()
}

#[test]
fn every_dialect_of_spreadsheets_gives_all_rows() {
    let plain =
        "path;age;split;note\nin/a.png;31,5;train;x\nin/b, c.png;20;train;\nZoë.png;7,25;val;\n";
    let utf16 = |text: &str, bytes: fn(u16) -> [u8; 2]| -> Vec<u8> {
        let marked = format!("\u{feff}{text}");
        marked.encode_utf16().flat_map(bytes).collect()
    };
    let latin = |text: &str| -> Vec<u8> { text.chars().map(|character| character as u8).collect() };
    let tables: [Vec<u8>; 13] = [
        plain.into(),
        format!("sep=;\r\n{}", plain.replace('\n', "\r\n")).into(),
        format!("\u{feff}sep=;\n{plain}").into(),
        plain.replace('\n', "\r").into(),
        plain.replace(';', "\t").into(),
        plain.replace(';', "|").into(),
        plain.replace("note", "\"a, b, c, d\"").into(),
        plain.replace("in/", "in\\").into(),
        plain.replace("in/", ".\\in\\").into(),
        // Delimiters behind the last column and below the last row, and rows whose last cells are
        // empty without one.
        format!("{};;;;\n;;;\n\n", plain.replace('\n', ";;\n")).into(),
        plain.replace("train;\n", "train\n").into(),
        latin(plain),
        utf16(plain, u16::to_le_bytes),
    ];
    for table in tables {
        let fixture = Fixture::with_images(&IMAGES);
        let dataset = read(&fixture, &table, &Options::default());
        let shown = String::from_utf8_lossy(&table).into_owned();
        assert_eq!(rejects(&dataset), [], "{shown}");
        let expected = [("in/a.png", 31.5), ("in/b, c.png", 20.0), ("Zoë.png", 7.25)];
        assert_eq!(rows(&dataset), expected, "{shown}");
    }
    let fixture = Fixture::with_images(&IMAGES);
    let dataset = read(
        &fixture,
        &utf16(plain, u16::to_be_bytes),
        &Options::default(),
    );
    assert_eq!(dataset.report.accepted, 3);
}

#[test]
fn rows_in_windows_1252_are_counted_in_a_warning() {
    let fixture = Fixture::with_images(&["Zoë.png", "a.png", "b.png"]);
    let table = b"path,age,split\nZo\xEB.png,1,train\na.png,2,train\nb.png,3,val\n";
    let dataset = read(&fixture, table, &Options::default());
    assert_eq!(dataset.report.accepted, 3);
    let [warning] = dataset.report.warnings.as_slice() else {
        panic!("{:?}", dataset.report.warnings);
    };
    assert!(
        warning.starts_with("1 rows of the manifest are not in UTF-8"),
        "{warning}"
    );
    assert!(warning.ends_with("save it as UTF-8"), "{warning}");
}

#[test]
fn a_row_that_was_cut_off_is_not_filled_up() {
    let fixture = Fixture::with_images(&["a.png", "b.png", "c.png"]);
    let table =
        b"path,age,gender,split\na.png,34,f,train\nb.png,35,f,train\nc.png,36,f,val\nd.png,3";
    let dataset = read(
        &fixture,
        table,
        &Options {
            max_reject_share: 1.0,
            ..Options::default()
        },
    );
    assert_eq!(
        rejects(&dataset),
        [("bad_row", 1, vec!["line 5: 2 fields, the header has 4"])]
    );
    // Here the columns that are needed are there, and still the age may have lost a digit.
    let table =
        b"path,split,age,gender\na.png,train,34,f\nb.png,train,35,f\nc.png,val,36,f\nd.png,val,3";
    let dataset = read(
        &fixture,
        table,
        &Options {
            max_reject_share: 1.0,
            ..Options::default()
        },
    );
    assert_eq!(
        rejects(&dataset),
        [("bad_row", 1, vec!["line 5: 3 fields, the header has 4"])]
    );
}

#[test]
fn lines_are_counted_from_the_start_of_the_file() {
    let tables: [&[u8]; 3] = [
        b"path,age,split\na.png,1,train\nb.png,2,train\nc.png,old,val\nc.png,3,val\n",
        b"path,age,split\ra.png,1,train\rb.png,2,train\rc.png,old,val\rc.png,3,val\r",
        b"sep=,\npath,age,split\na.png,1,train\nb.png,2,train\nc.png,old,val\nc.png,3,val\n",
    ];
    for (table, line) in tables.into_iter().zip([4, 4, 5]) {
        let fixture = Fixture::with_images(&["a.png", "b.png", "c.png"]);
        let options = Options {
            max_reject_share: 0.5,
            ..Options::default()
        };
        let dataset = read(&fixture, table, &options);
        let example = format!("line {line}: the age \"old\" is not a number");
        assert_eq!(rejects(&dataset), [("bad_row", 1, vec![example.as_str()])]);
    }
}

#[test]
fn columns_are_read_by_the_names_that_are_given() {
    let fixture = Fixture::with_images(&["a.png", "b.png", "c.png"]);
    let table = b"image,Image File,age,Years,Subset,split\nx,a.png,1,30,train,a\nx,b.png,1,31,train,b\nx,c.png,1,32,val,c\n";
    let named = Options {
        columns: ColumnNames {
            path: "image file".to_owned(),
            age: "years".to_owned(),
            split: "SUBSET".to_owned(),
        },
        ..Options::default()
    };
    let dataset = read(&fixture, table, &named);
    assert_eq!(
        rows(&dataset),
        [("a.png", 30.0), ("b.png", 31.0), ("c.png", 32.0)]
    );
    assert_eq!(names(&dataset.val), ["c.png"]);

    let missing = Options {
        columns: ColumnNames {
            age: "birthday".to_owned(),
            split: "fold".to_owned(),
            ..ColumnNames::default()
        },
        ..Options::default()
    };
    let refused = check_source(&fixture.directory(), &fixture.roots(), &missing).unwrap_err();
    let message = refused.to_string();
    assert!(
        message.contains("has no column \"birthday\" and \"fold\""),
        "{message}"
    );
    let twice = Options {
        columns: ColumnNames {
            path: "age".to_owned(),
            ..ColumnNames::default()
        },
        ..Options::default()
    };
    let refused = check_source(&fixture.directory(), &fixture.roots(), &twice).unwrap_err();
    let message = refused.to_string();
    assert!(
        message.contains("column age cannot be two of path, age and split"),
        "{message}"
    );
}

#[test]
fn names_are_found_in_another_normalization_of_unicode() {
    // "José" and "Müller" with composed (NFC) and with combining characters (NFD), as Macs store
    // them.
    let (nfc, nfd) = ("Jos\u{e9}/M\u{fc}ller.png", "Jose\u{301}/Mu\u{308}ller.png");
    for (stored, written) in [(nfc, nfd), (nfd, nfc), (nfc, nfc), (nfd, nfd)] {
        let fixture = Fixture::with_images(&[stored, "a.png", "b.png"]);
        let absolute = fixture.directory().join(written).display().to_string();
        for path in [written, absolute.as_str()] {
            let table = format!("path,age,split\n{path},1,train\na.png,2,train\nb.png,3,val\n");
            let dataset = read(&fixture, table.as_bytes(), &Options::default());
            assert_eq!(rejects(&dataset), []);
            let sample = dataset
                .train
                .iter()
                .find(|sample| sample.age == 1.0)
                .unwrap();
            assert_eq!(sample.name, path);
            assert_eq!(
                sample.path,
                fixture.directory().canonicalize().unwrap().join(stored)
            );
        }
    }
}

#[test]
fn names_that_differ_in_normalization_alone_are_two_files_where_both_exist() {
    let (nfc, nfd) = ("Jos\u{e9}.png", "Jose\u{301}.png");
    let fixture = Fixture::with_images(&[nfc, nfd, "a.png"]);
    let table = format!("path,age,split\n{nfc},1,train\n{nfd},2,train\na.png,3,val\n");
    let dataset = read(&fixture, table.as_bytes(), &Options::default());
    assert_eq!(rejects(&dataset), []);
    let mut ages: Vec<f32> = dataset.train.iter().map(|sample| sample.age).collect();
    ages.sort_by(f32::total_cmp);
    assert_eq!(ages, [1.0, 2.0]);
    assert_ne!(dataset.train[0].path, dataset.train[1].path);

    // The same file twice, and a name that fits two files.
    let fixture =
        Fixture::with_images(&[nfd, "a.png", "e\u{323}\u{302}.png", "\u{1eb9}\u{302}.png"]);
    let table =
        format!("path,age,split\n{nfc},1,train\n{nfd},2,train\na.png,3,val\n\u{1ec7}.png,4,val\n");
    let options = Options {
        max_reject_share: 1.0,
        verify: Verify::HeaderOnly,
        purpose: Purpose::Evaluation,
        ..Options::default()
    };
    let dataset = read(&fixture, table.as_bytes(), &options);
    let found = rejects(&dataset);
    assert_eq!(found[0], ("duplicate_row", 1, vec![nfd]));
    assert_eq!((found[1].0, found[1].1), ("missing", 1));
    assert!(
        found[1].2[0].contains("2 files have this name in other normalizations"),
        "{found:?}"
    );
}

#[test]
fn backslashes_do_not_lead_out_of_the_dataset() {
    let fixture = Fixture::with_images(&["a.png", "b.png", "odd\\name.png"]);
    fs::write(fixture.root.path().join("secret.png"), png(9)).unwrap();
    let table = "path,age,split\na.png,1,train\nodd\\name.png,2,train\nb.png,3,val\n..\\secret.png,4,train\n\\etc\\hostname,5,train\nC:\\faces\\1.png,6,train\n\\\\server\\share\\1.png,7,train\n";
    let options = Options {
        max_reject_share: 1.0,
        ..Options::default()
    };
    let dataset = read(&fixture, table.as_bytes(), &options);
    assert_eq!(
        rows(&dataset),
        [("a.png", 1.0), ("odd\\name.png", 2.0), ("b.png", 3.0)]
    );
    assert_eq!(
        rejects(&dataset),
        [(
            "outside_root",
            4,
            vec![
                "..\\secret.png",
                "\\etc\\hostname",
                "C:\\faces\\1.png: a path with a drive letter; write it relative to the directory of the manifest",
                "\\\\server\\share\\1.png",
            ]
        )]
    );
}

#[test]
fn links_are_not_listed_outside_of_the_roots() {
    let fixture = Fixture::with_images(&["a.png", "b.png"]);
    let elsewhere = TempDir::new().unwrap();
    fs::write(elsewhere.path().join("Jose\u{301}.png"), png(5)).unwrap();
    symlink(elsewhere.path(), fixture.directory().join("link")).unwrap();
    let table = "path,age,split\na.png,1,train\nb.png,3,val\nlink/Jos\u{e9}.png,2,train\n";
    let options = Options {
        max_reject_share: 1.0,
        purpose: Purpose::Evaluation,
        ..Options::default()
    };
    let dataset = read(&fixture, table.as_bytes(), &options);
    assert_eq!(
        rejects(&dataset),
        [("missing", 1, vec!["link/Jos\u{e9}.png"])]
    );
}

#[test]
fn a_header_that_does_not_end_is_refused_after_a_megabyte() {
    let fixture = Fixture::new();
    let mut table = b"\"path,age\n".to_vec();
    table.resize(3 << 20, b'x');
    fixture.put("manifest.csv", &table);
    let refused = check_source(&fixture.directory(), &fixture.roots(), &Options::default());
    assert!(refused.is_err());
    assert!(fixture.load(&Options::default()).is_err());
}
