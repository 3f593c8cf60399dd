use crate::cli::tests::{
    fake::{Fake, State},
    visage,
};

#[tokio::test]
async fn only_a_verified_download_gets_its_name() {
    // SHA-256 of the five bytes "hello", from `printf hello | sha256sum`.
    let sha256 = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("model.safetensors");
    let target_text = target.to_str().unwrap();
    let arguments = ["trainings", "download", "t", "--output", target_text];
    for (damaged, problem) in [(&b"hullo"[..], "found"), (b"hell", "found 4 bytes")] {
        let broken = Fake::start(State {
            file: damaged.to_vec(),
            size_bytes: 5,
            sha256: sha256.to_owned(),
            ..State::default()
        });
        let run = visage(&broken.url(), &arguments).await;
        assert_eq!(run.code, 1);
        let start = format!("error: {target_text} differs from the stored file: expected ");
        assert!(run.stderr.starts_with(&start), "{}", run.stderr);
        assert!(run.stderr.contains(problem), "{}", run.stderr);
        assert_eq!(fs_err::read_dir(directory.path()).unwrap().count(), 0);
    }
    let whole = Fake::start(State {
        file: b"hello".to_vec(),
        size_bytes: 5,
        sha256: sha256.to_owned(),
        ..State::default()
    });
    let run = visage(&whole.url(), &arguments).await;
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(fs_err::read(&target).unwrap(), b"hello");
}
