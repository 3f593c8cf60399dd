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
        Err(Error::NoRoots { .. })
    ));
    let message = Roots::new([PathBuf::from("/no/such/root")])
        .unwrap_err()
        .to_string();
    assert!(message.contains("/no/such/root"), "{message}");
    assert!(Roots::new([fixture.directory().join("1_a.png")]).is_err());
}

#[test]
fn link_with_a_hidden_or_missing_target_is_like_one_that_leads_out() {
    let outside = TempDir::new().unwrap();
    let fixture = Fixture::with_images(&["1_a.png"]);
    let root = fixture.root.path();
    symlink(outside.path(), root.join("present")).unwrap();
    symlink(outside.path().join("absent"), root.join("absent")).unwrap();
    symlink("circle", root.join("circle")).unwrap();
    let roots = fixture.roots();
    let texts: Vec<String> = ["present", "absent", "circle", "present/x", "absent/x"]
        .iter()
        .map(|path| {
            roots
                .resolve(path)
                .unwrap_err()
                .to_string()
                .replace(path, "PATH")
        })
        .collect();
    assert!(texts.iter().all(|text| *text == texts[0]), "{texts:#?}");
    assert!(
        texts[0].contains("is outside the allowed directories"),
        "{texts:?}"
    );
}

#[test]
fn data_directory_under_a_root_is_refused_except_for_its_datasets() {
    let fixture = Fixture::with_images(&["1_a.png", "2_b.png", "3_c.png"]);
    let data_dir = fixture.directory().join("visage-data");
    for path in ["uploads", "datasets/faces-1", "artifacts"] {
        fs::create_dir_all(data_dir.join(path)).unwrap();
    }
    fs::write(data_dir.join("visage.db"), "x").unwrap();
    fs::write(data_dir.join("uploads/9_x.png"), png(900)).unwrap();
    fs::write(data_dir.join("datasets/faces-1/4_d.png"), png(4)).unwrap();
    let roots = fixture.roots().except_data_dir(data_dir.clone()).unwrap();
    let roots = roots.with_own(data_dir.join("datasets")).unwrap();
    let resolve = |path: &str| roots.resolve(&data_dir.join(path).display().to_string());
    for path in [
        "",
        "visage.db",
        "uploads",
        "uploads/9_x.png",
        "uploads/absent",
        "artifacts",
    ] {
        let refused = resolve(path).unwrap_err();
        assert!(
            matches!(refused, Error::OutsideRoots { .. }),
            "{path}: {refused}"
        );
    }
    assert!(resolve("datasets/faces-1").is_ok());

    let options = Options::default();
    let load = |path: &Path| load(path, &roots, &options, &mut |_, _, _| {}, &|| false);
    let dataset = load(&fixture.directory()).unwrap();
    assert_eq!(
        dataset.train.len() + dataset.val.len() + dataset.test.len(),
        3
    );
    let manifest = "path,age\n1_a.png,1\n2_b.png,2\n3_c.png,3\nvisage-data/uploads/9_x.png,9\n";
    fixture.put("manifest.csv", manifest.as_bytes());
    let tolerant = Options {
        max_reject_share: 0.5,
        ..Options::default()
    };
    let dataset = crate::dataset::load(
        &fixture.directory(),
        &roots,
        &tolerant,
        &mut |_, _, _| {},
        &|| false,
    )
    .unwrap();
    assert_eq!(
        rejects(&dataset),
        [("outside_root", 1, vec!["visage-data/uploads/9_x.png"])]
    );
}

#[test]
fn without_roots_only_files_of_the_server_are_read() {
    let fixture = Fixture::with_images(&["1_a.png"]);
    let own = fixture.directory();
    let roots = Roots::new([]).unwrap().with_own(own.clone()).unwrap();
    assert!(roots.resolve(&own.display().to_string()).is_ok());
    for path in ["/etc/passwd", "/no/such/file", "absent", "/etc"] {
        let refused = roots.resolve(path).unwrap_err();
        let text = refused.to_string();
        assert!(matches!(refused, Error::NoRoots { .. }), "{path}: {text}");
        assert!(text.contains("data_roots"), "{text}");
    }
}

#[tokio::test]
async fn paths_are_resolved_on_another_thread() {
    let fixture = Fixture::with_images(&["1_a.png"]);
    let root = fs::canonicalize(fixture.root.path()).unwrap();
    let resolved = fixture.roots().resolve_async("faces").await.unwrap();
    assert_eq!(resolved, root.join("faces"));
    assert!(fixture.roots().resolve_async("absent").await.is_err());
}
