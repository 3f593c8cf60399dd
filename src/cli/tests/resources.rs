use crate::proto::v1::{Limits, TrainingState};

use super::{
    fake::{Fake, State},
    story::ended,
    visage,
};

#[tokio::test]
async fn lists_go_over_pages_to_their_limit() {
    let server = Fake::start(ended(TrainingState::Succeeded));
    let run = visage(&server.url(), &["trainings", "list"]).await;
    let ids: Vec<&str> = run
        .lines()
        .iter()
        .map(|line| line.split_whitespace().next().unwrap())
        .collect();
    assert_eq!(ids, ["ID", "t0", "t1", "t2", "t3", "t4"]);
    let run = visage(
        &server.url(),
        &[
            "trainings",
            "list",
            "--limit",
            "3",
            "--state",
            "running",
            "--json",
        ],
    )
    .await;
    let objects = run.objects();
    assert_eq!(objects.len(), 3);
    assert_eq!(objects[2]["name"], "trainings/t2");
}

#[tokio::test]
async fn stop_shows_why_it_cannot() {
    let server = Fake::start(ended(TrainingState::Succeeded));
    let run = visage(&server.url(), &["trainings", "stop", "t"]).await;
    assert_eq!(
        (run.code, run.stderr.as_str()),
        (1, "error: trainings/t has already ended\n")
    );
}

#[tokio::test]
async fn checkpoints_are_listed_with_their_size() {
    let server = Fake::start(ended(TrainingState::Succeeded));
    let run = visage(&server.url(), &["trainings", "checkpoints", "t"]).await;
    let row: Vec<&str> = run.lines()[1].split_whitespace().collect();
    assert_eq!(
        row,
        [
            "7",
            "84.2500",
            "7.12",
            "44.0",
            "MiB",
            "best",
            "trainings/t/checkpoints/7"
        ]
    );
}

#[tokio::test]
async fn a_download_gets_its_name_only_when_it_is_whole() {
    // SHA-256 of the five bytes "hello", from `printf hello | sha256sum`.
    let sha256 = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("model.safetensors");
    let arguments = [
        "trainings",
        "download",
        "t",
        "--output",
        target.to_str().unwrap(),
    ];
    let broken = Fake::start(State {
        file: b"hullo".to_vec(),
        sha256: sha256.to_owned(),
        ..State::default()
    });
    let run = visage(&broken.url(), &arguments).await;
    assert_eq!(run.code, 1);
    assert!(
        run.stderr.contains("is not what the server stores"),
        "{}",
        run.stderr
    );
    assert_eq!(fs_err::read_dir(directory.path()).unwrap().count(), 0);
    let whole = Fake::start(State {
        file: b"hello".to_vec(),
        sha256: sha256.to_owned(),
        ..State::default()
    });
    let run = visage(&whole.url(), &arguments).await;
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(fs_err::read(&target).unwrap(), b"hello");
}

#[tokio::test]
async fn an_export_of_damaged_files_leaves_nothing() {
    let server = Fake::start(State {
        file: b"hullo".to_vec(),
        // SHA-256 of other bytes, of "hello".
        sha256: "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824".to_owned(),
        ..State::default()
    });
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("age.pt").display().to_string();
    let export = ["models", "export", "--format", "torchscript", "--output"];
    let arguments = [export.as_slice(), &[target.as_str()]].concat();
    let run = visage(&server.url(), &arguments).await;
    assert_eq!(run.code, 1);
    assert!(
        run.stderr
            .contains("manifest.json is not what the server stores"),
        "{}",
        run.stderr
    );
    let run = visage(&server.url(), &[arguments.as_slice(), &["9"]].concat()).await;
    assert_eq!(
        (run.code, run.stderr.as_str()),
        (1, "error: there is no models/age/versions/9\n")
    );
    assert_eq!(fs_err::read_dir(directory.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn info_shows_the_limits() {
    let server = Fake::start(State {
        limits: Limits {
            max_message_bytes: 16 << 20,
            ..Limits::default()
        },
        ..State::default()
    });
    let run = visage(&server.url(), &["info"]).await;
    assert!(
        run.stdout.contains("largest request          16.0 MiB\n"),
        "{}",
        run.stdout
    );
    let run = visage(&server.url(), &["info", "--json"]).await;
    assert_eq!(run.objects()[0]["limits"]["max_message_bytes"], 16 << 20);
}

#[tokio::test]
async fn models_are_listed_shown_and_registered() {
    let server = Fake::start(State::default());
    let run = visage(&server.url(), &["models", "list"]).await;
    let row: Vec<&str> = run.lines()[1].split_whitespace().collect();
    assert_eq!(
        row,
        ["3", "live", "84.2500", "7.12", "trainings/t/checkpoints/7"]
    );
    let run = visage(&server.url(), &["models", "get", "live", "--json"]).await;
    assert_eq!(
        (
            &run.objects()[0]["version"],
            &run.objects()[0]["input_size"]
        ),
        (&3.into(), &224.into())
    );
    let run = visage(&server.url(), &["models", "get", "9"]).await;
    assert_eq!(
        (run.code, run.stderr.as_str()),
        (1, "error: there is no models/age/versions/9\n")
    );
    let run = visage(&server.url(), &["models", "register", "t", "--json"]).await;
    assert_eq!(
        run.objects()[0]["checkpoint"],
        "trainings/t/checkpoints/best"
    );
    let run = visage(&server.url(), &["models", "history"]).await;
    let row: Vec<&str> = run.lines()[1].split_whitespace().collect();
    assert_eq!(row, ["live", "2", "3", "promote"]);
}

#[tokio::test]
async fn an_alias_is_set_to_a_version_or_another_alias() {
    let server = Fake::start(State::default());
    let arguments = [
        "models",
        "alias",
        "set",
        "live",
        "previous",
        "--expected",
        "0",
    ];
    assert_eq!(visage(&server.url(), &arguments).await.code, 0);
    let aliased = server.state.aliased.lock().unwrap();
    assert_eq!(aliased[0].name, "models/age/versions/previous");
    assert_eq!(
        (aliased[0].alias.as_str(), aliased[0].expected_version),
        ("live", Some(0))
    );
}

#[tokio::test]
async fn faces_are_drawn_without_a_server() {
    let directory = tempfile::tempdir().unwrap();
    let dir = directory.path().join("faces").display().to_string();
    let arguments = [
        "synth", &dir, "--count", "2", "--size", "32", "--ages", "20-30", "--json",
    ];
    let run = visage("http://127.0.0.1:1", &arguments).await;
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(
        (&run.objects()[0]["written"], &run.objects()[0]["dir"]),
        (&2.into(), &dir.into())
    );
}
