//! Manifests: paths, ages, parts and labels by columns.

use super::*;

#[test]
fn a_manifest_gives_paths_ages_parts_and_labels() {
    let fixture = Fixture::with_images(&["in/a.png", "in/b, c.png", "d.png", "e.png"]);
    let tables = [
        (
            "manifest.csv",
            "\u{feff}Image,Age,Split,Gender,note\r\nin/a.png,34.5,train,f,\r\n\"in/b, c.png\",20,Train,m,x\r\n./d.png,7,validation,f,\r\ne.png,80,test,m,\r\n",
        ),
        (
            "manifest.tsv",
            "gender\tfilename\tage\tsplit\tnote\nf\tin/a.png\t34.5\ttrain\t\nm\tin/b, c.png\t20\ttrain\tx\n\nf\td.png\t7\tval\t\nm\te.png\t80\ttest\t",
        ),
        (
            "semicolons.csv",
            "path;age;split;gender;note\nin/a.png; 34.5 ;train;f;\nin/b, c.png;20;train;m;x\nd.png;7;valid;f;\ne.png;80;test;m;\n",
        ),
    ];
    let mut digests = Vec::new();
    for (file, table) in tables {
        fixture.put(file, table.as_bytes());
        // A directory with one manifest is read through it; another name has to be given itself.
        let path = if file.starts_with("manifest") {
            fixture.directory()
        } else {
            fixture.directory().join(file)
        };
        let dataset = load_quietly(&path, &fixture.roots(), &Options::default()).unwrap();
        assert_eq!(dataset.report.source, Source::Manifest);
        assert_eq!(names(&dataset.train), ["in/a.png", "in/b, c.png"], "{file}");
        assert_eq!(names(&dataset.val), ["d.png"]);
        assert_eq!(names(&dataset.test), ["e.png"]);
        assert_eq!(dataset.train[0].age, 34.5);
        assert_eq!(dataset.train[0].labels.get("gender"), Some("f"));
        assert_eq!(dataset.train[0].labels.get("note"), None);
        let labels: Vec<_> = dataset.train[1].labels.iter().collect();
        assert_eq!(labels, [("gender", "m"), ("note", "x")]);
        digests.push(dataset.digest);
        fs::remove_file(fixture.directory().join(file)).unwrap();
    }
    assert!(digests.iter().all(|digest| *digest == digests[0]));
}

#[test]
fn a_manifest_without_a_split_is_divided_by_content() {
    let fixture = Fixture::new();
    let mut table = "path,age,split\n".to_owned();
    for number in 0..50 {
        fixture.put(&format!("{number}.png"), &png(number));
        table += &format!("{number}.png,{number},\n");
    }
    fixture.put("manifest.csv", table.as_bytes());
    let dataset = fixture.load(&Options::default()).unwrap();
    assert_eq!(dataset.report.split, SplitOrigin::Hashed);
    assert_eq!(dataset.report.accepted, 50);
}

#[test]
fn bad_rows_are_rejected_with_their_line() {
    let fixture = Fixture::with_images(&["a.png", "b.png", "c.png"]);
    let table = "path,age,split\na.png,1,train\nb.png,2,train\nc.png,3,val\n\
        d.png,old,train\ne.png,NaN,train\n,5,train\nf.png,6,third\ng.png,7\nh.png,8,\n\
        a.png,9,train\ni.png,130,train\nmissing.png,10,train\n/etc/hostname,11,train\n../secret.png,12,train\nx/../a.png,13,val\n";
    fixture.put("manifest.csv", table.as_bytes());
    let dataset = fixture.load_tolerant();
    assert_eq!(
        rejects(&dataset),
        [
            ("age_out_of_range", 1, vec!["i.png: age 130"]),
            (
                "bad_row",
                6,
                vec![
                    "line 5: the age \"old\" is not a number",
                    "line 6: the age \"NaN\" is not a number",
                    "line 7: the path is empty",
                    "line 8: the split must be train, training, val, valid, validation, dev, test, testing, eval, evaluation or holdout, got \"third\"",
                    "line 9: 2 fields, the header has 3",
                ]
            ),
            ("duplicate_row", 1, vec!["a.png"]),
            (
                "outside_root",
                3,
                vec!["/etc/hostname", "../secret.png", "x/../a.png"]
            ),
            ("missing", 1, vec!["missing.png"]),
        ]
    );
    assert_eq!(dataset.report.accepted, 3);
    assert_eq!(dataset.report.considered, 15);
}

#[test]
fn paths_of_a_manifest_may_be_absolute_under_a_root() {
    let fixture = Fixture::with_images(&["a.png", "faces/b.png", "c.png"]);
    let (first, second) = (
        fixture.directory().join("a.png").display().to_string(),
        fixture
            .directory()
            .join("faces/./b.png")
            .display()
            .to_string(),
    );
    let table = format!("path,age,split\n\"{first}\",1,train\nc.png,2,train\n{second},3,val\n");
    fixture.put("manifest.csv", table.as_bytes());
    let dataset = fixture.load_tolerant();
    assert_eq!(rejects(&dataset), []);
    assert_eq!(dataset.report.accepted, 3);
}

#[test]
fn a_manifest_that_cannot_be_understood_is_an_error_that_says_why() {
    let utf16_cut_off: Vec<u8> = "\u{feff}path,age\n"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .take(17)
        .collect();
    let cases: [(&[u8], &[&str]); 7] = [
        (
            b"Name,Years,split\na.png,3,train\n",
            &[
                "path (or file, image, filename) and age",
                "columns are: Name, Years, split",
            ],
        ),
        (
            b"file,years\n",
            &["no column age", "columns are: file, years"],
        ),
        (b"Name,Years\n", &["with --column path=Name,age=Years"]),
        (
            b"path,age,Age\n",
            &["two of its columns are named age", "rename one"],
        ),
        (b"", &["no column path"]),
        (&utf16_cut_off, &["UTF-16"]),
        (
            b"path,age\na.png,1\n\"b.png,2\nc.png,3\nd.png,4\n",
            &["line 3", "quote"],
        ),
    ];
    for (table, expected) in cases {
        let fixture = Fixture::new();
        fixture.put("manifest.csv", table);
        let message = fixture.load(&Options::default()).unwrap_err().to_string();
        for part in expected {
            assert!(message.contains(part), "{message}");
        }
    }
    let both = Fixture::new();
    both.put("manifest.csv", b"path,age\n");
    both.put("manifest.tsv", b"path\tage\n");
    assert!(matches!(
        both.load(&Options::default()),
        Err(Error::AmbiguousManifest { .. })
    ));
}
