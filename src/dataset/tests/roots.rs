//! Access to files: links, and paths outside the roots.

use super::*;

#[test]
fn links_out_of_the_roots_are_rejected_and_links_within_them_are_followed() {
    let outside = TempDir::new().unwrap();
    fs::write(outside.path().join("9_secret.png"), png(900)).unwrap();
    let fixture = Fixture::with_images(&["train/1_a.png", "train/2_b.png", "val/3_c.png"]);
    let directory = fixture.directory();
    fs::create_dir(fixture.root.path().join("pool")).unwrap();
    fs::write(fixture.root.path().join("pool/4_d.png"), png(4)).unwrap();
    symlink("../../pool/4_d.png", directory.join("train/4_link.png")).unwrap();
    symlink("..", directory.join("train/circle")).unwrap();
    symlink(outside.path(), directory.join("val/directory")).unwrap();
    symlink(
        outside.path().join("9_secret.png"),
        directory.join("val/9_file.png"),
    )
    .unwrap();

    let dataset = fixture.load_tolerant();
    assert_eq!(
        names(&dataset.train),
        ["train/1_a.png", "train/2_b.png", "train/4_link.png"]
    );
    assert_eq!(names(&dataset.val), ["val/3_c.png"]);
    assert_eq!(
        rejects(&dataset),
        [("outside_root", 2, vec!["val/directory", "val/9_file.png"])]
    );

    fixture.put(
        "manifest.csv",
        b"path,age,split\ntrain/1_a.png,1,train\ntrain/2_b.png,1,train\nval/3_c.png,1,val\nval/9_file.png,1,val\nval/directory/9_secret.png,1,val\n",
    );
    let dataset = fixture.load_tolerant();
    assert_eq!(
        rejects(&dataset),
        [(
            "outside_root",
            2,
            vec!["val/9_file.png", "val/directory/9_secret.png"]
        )]
    );
    fs::remove_file(directory.join("manifest.csv")).unwrap();
    fs::write(outside.path().join("list.csv"), "path,age\n").unwrap();
    symlink(
        outside.path().join("list.csv"),
        directory.join("manifest.csv"),
    )
    .unwrap();
    assert!(matches!(
        fixture.load(&Options::default()),
        Err(Error::OutsideRoots { .. })
    ));
}

#[test]
fn roots_resolve_what_lies_under_them_and_tell_nothing_of_the_rest() {
    let outside = TempDir::new().unwrap();
    fs::write(outside.path().join("there.csv"), "x").unwrap();
    let fixture = Fixture::with_images(&["1_a.png"]);
    let roots = fixture.roots();
    let root = fs::canonicalize(fixture.root.path()).unwrap();
    symlink(outside.path(), root.join("escape")).unwrap();

    let absolute = fixture.directory().display().to_string();
    for inside in ["faces", "faces/", "./faces", "faces/../faces", &absolute] {
        assert_eq!(
            roots.resolve(inside).unwrap(),
            root.join("faces"),
            "{inside}"
        );
    }
    assert_eq!(roots.resolve("").unwrap(), root);

    let parent = "..";
    let present = outside.path().join("there.csv").display().to_string();
    let absent = outside.path().join("absent.csv").display().to_string();
    for path in [
        parent,
        "/etc",
        "/",
        "escape",
        "escape/there.csv",
        "escape/absent.csv",
        "absent/../../x",
        &present,
        &absent,
    ] {
        let error = roots.resolve(path).unwrap_err();
        assert!(
            matches!(error, Error::OutsideRoots { .. }),
            "{path}: {error}"
        );
        assert!(error.to_string().contains(&root.display().to_string()));
    }
    for path in ["nothing", "faces/nothing/deeper", "faces/1_a.png/deeper"] {
        let error = roots.resolve(path).unwrap_err();
        assert!(matches!(error, Error::NotFound { .. }), "{path}: {error}");
    }

    assert!(matches!(
        Roots::default().resolve("faces"),
        Err(Error::NoRoots)
    ));
    let message = Roots::new([PathBuf::from("/no/such/root")])
        .unwrap_err()
        .to_string();
    assert!(message.contains("/no/such/root"), "{message}");
    assert!(Roots::new([fixture.directory().join("1_a.png")]).is_err());
}
