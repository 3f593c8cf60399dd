use std::path::PathBuf;

use tempfile::TempDir;

use crate::proto::v1::Limits;

use super::{
    fake::{Fake, State},
    visage,
};

/// A server that takes three images and 2,000 bytes of images a request.
fn server(names_bad_images: bool) -> Fake {
    Fake::start(State {
        limits: Limits {
            max_message_bytes: 3024,
            max_image_bytes: 1500,
            max_images_per_request: 3,
            max_queued_images: 6,
            ..Limits::default()
        },
        names_bad_images,
        features: vec!["explain".to_owned(), "detect_faces".to_owned()],
        ..State::default()
    })
}

/// Files whose ages are 30, 31, … and, where the name begins so, bad ones.
fn images(names: &[&str]) -> (TempDir, Vec<String>) {
    let directory = tempfile::tempdir().unwrap();
    let paths = names
        .iter()
        .zip(30u8..)
        .map(|(name, age)| {
            let path = directory.path().join(name);
            let content = match *name {
                "bad.jpg" | "bad2.jpg" => b"bad".to_vec(),
                "large.jpg" => vec![1; 1501],
                "half.jpg" => vec![age; 1200],
                "empty.jpg" => Vec::new(),
                _ => vec![age],
            };
            fs_err::write(&path, content).unwrap();
            path.display().to_string()
        })
        .collect();
    (directory, paths)
}

async fn predict(server: &Fake, files: &[String], more: &[&str]) -> super::Run {
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    visage(&server.url(), &[&["predict"], more, &files].concat()).await
}

fn group_sizes(server: &Fake) -> Vec<usize> {
    let predicted = server.state.predicted.lock().unwrap();
    predicted
        .iter()
        .map(|request| request.images.len())
        .collect()
}

#[tokio::test]
async fn the_table_has_a_row_for_each_file_in_order() {
    let server = server(true);
    let (_directory, files) = images(&["a.jpg", "b.jpg"]);
    let run = predict(&server, &files, &[]).await;
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    let lines = run.lines();
    let cells = |line: &str| {
        line.split("  ")
            .filter(|cell| !cell.is_empty())
            .map(|cell| cell.trim().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        cells(lines[0]),
        ["file", "age", "90% interval", "model version"]
    );
    assert_eq!(
        cells(lines[1]),
        [
            files[0].as_str(),
            "30.0",
            "21.2 - 40.5",
            "models/age/versions/3"
        ]
    );
    assert_eq!(cells(lines[2])[1], "31.0");
}

#[tokio::test]
async fn groups_stay_under_the_limits_of_the_server() {
    let server = server(true);
    let (_directory, files) = images(&["1", "2", "3", "4", "half.jpg", "half.jpg2", "7", "8"]);
    let run = predict(&server, &files, &["--json"]).await;
    assert_eq!(run.code, 0, "{}", run.stderr);
    let ages: Vec<f64> = run
        .objects()
        .iter()
        .map(|object| object["age"].as_f64().unwrap())
        .collect();
    assert_eq!(ages, [30.0, 31.0, 32.0, 33.0, 34.0, 35.0, 36.0, 37.0]);
    let sizes = group_sizes(&server);
    assert!(
        sizes.iter().all(|&size| size <= 3) && sizes.iter().sum::<usize>() == 8,
        "{sizes:?}"
    );
    for request in server.state.predicted.lock().unwrap().iter() {
        assert!(prost::Message::encoded_len(request) <= 3024);
    }
}

#[tokio::test]
async fn a_bad_file_is_named_and_the_others_go_on() {
    let server = server(true);
    let (directory, mut files) = images(&[
        "a.jpg",
        "bad.jpg",
        "bad2.jpg",
        "large.jpg",
        "empty.jpg",
        "f.jpg",
    ]);
    files.push(directory.path().display().to_string());
    files.push(directory.path().join("absent.jpg").display().to_string());
    let run = predict(&server, &files, &["--json"]).await;
    assert_eq!(run.code, 1);
    let objects = run.objects();
    let named: Vec<&str> = objects
        .iter()
        .map(|object| object["file"].as_str().unwrap())
        .collect();
    assert_eq!(named, files);
    assert_eq!(
        (&objects[0]["age"], &objects[5]["age"]),
        (&30.0.into(), &35.0.into())
    );
    let error = |index: usize| objects[index]["error"].as_str().unwrap();
    assert_eq!(error(1), "is not an image");
    assert_eq!(error(2), "is not an image");
    assert_eq!(
        error(3),
        "is 1.5 KiB large, above the server's limit of 1.5 KiB for an image"
    );
    assert_eq!(error(4), "is empty");
    assert!(
        error(6).contains("is a directory; name its files"),
        "{}",
        error(6)
    );
    assert_eq!(error(7), "there is no such file");
    assert!(
        run.stderr
            .contains(&format!("{}: is not an image\n", files[1])),
        "{}",
        run.stderr
    );
    assert_eq!(group_sizes(&server).iter().max(), Some(&3));
}

#[tokio::test]
async fn a_bad_file_that_is_not_named_by_the_server_is_found_one_by_one() {
    let server = server(false);
    let (_directory, files) = images(&["a.jpg", "bad.jpg", "c.jpg"]);
    let run = predict(&server, &files, &["--json"]).await;
    assert_eq!(run.code, 1);
    assert_eq!(run.objects()[1]["error"], "an image cannot be read");
    assert_eq!(run.objects()[2]["age"], 32.0);
    assert_eq!(group_sizes(&server), [3, 1, 1, 1]);
}

#[tokio::test]
async fn json_says_where_the_time_went() {
    let server = server(true);
    let (_directory, files) = images(&["a.jpg"]);
    let run = predict(&server, &files, &["--json", "--model", "live"]).await;
    let object = &run.objects()[0];
    assert_eq!(object["durations"]["decode"], "0.002s");
    assert_eq!(object["interval"]["lower"], 21.25);
    assert_eq!(object["interval"]["confidence"], 0.9);
    assert_eq!(object["model_version"], "models/age/versions/3");
    assert_eq!(
        (&object["width"], &object["height"]),
        (&640.into(), &480.into())
    );
    assert_eq!(
        server.state.predicted.lock().unwrap()[0].model,
        "models/age/versions/live"
    );
}

#[tokio::test]
async fn the_wanted_level_of_the_interval_is_asked_for_and_told() {
    let server = server(true);
    let (_directory, files) = images(&["a.jpg"]);
    let run = predict(&server, &files, &["--interval", "0.8"]).await;
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.lines()[0].contains("80% interval"), "{}", run.stdout);
    let asked = server.state.predicted.lock().unwrap()[0].interval_level;
    assert_eq!(asked, Some(0.8));
}

#[tokio::test]
async fn a_model_that_does_not_exist_ends_the_run() {
    let server = server(true);
    let (_directory, files) = images(&["a.jpg"]);
    let run = predict(&server, &files, &["--model", "99"]).await;
    assert_eq!(
        (run.code, run.stderr.as_str()),
        (1, "error: there is no models/age/versions/99\n")
    );
}

#[tokio::test]
async fn one_image_is_drawn_to_a_file_and_several_into_a_directory() {
    let server = server(true);
    let (directory, files) = images(&["a.jpg", "b.jpg"]);
    let out = directory.path().join("out.png");
    let run = predict(&server, &files[..1], &["--annotate", out.to_str().unwrap()]).await;
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(fs_err::read(&out).unwrap(), [b'P', 30]);
    let out = directory.path().join("drawn");
    let same_stem = directory.path().join("a.webp");
    fs_err::write(&same_stem, [50]).unwrap();
    let all = [files, vec![same_stem.display().to_string()]].concat();
    let run = predict(
        &server,
        &all,
        &["--annotate", out.to_str().unwrap(), "--json"],
    )
    .await;
    assert_eq!(run.code, 0, "{}", run.stderr);
    let drawn = |name: &str| fs_err::read(out.join(name)).unwrap();
    assert_eq!(
        (drawn("a.png"), drawn("b.png"), drawn("a-2.png")),
        (vec![b'P', 30], vec![b'P', 31], vec![b'P', 50])
    );
    let annotated = run.objects()[2]["annotated"].as_str().map(PathBuf::from);
    assert_eq!(annotated, Some(out.join("a-2.png")));
    let not_png = directory.path().join("out.jpg");
    let run = predict(
        &server,
        &all[..1],
        &["--annotate", not_png.to_str().unwrap()],
    )
    .await;
    assert_eq!(run.code, 2, "{}", run.stderr);
    let not_directory = directory.path().join("all.png");
    let run = predict(
        &server,
        &all,
        &["--annotate", not_directory.to_str().unwrap()],
    )
    .await;
    assert_eq!(run.code, 2, "{}", run.stderr);
}

#[tokio::test]
async fn a_image_is_explained_to_a_file_and_several_into_a_directory() {
    let server = server(true);
    let (directory, files) = images(&["a.jpg", "b.jpg"]);
    let out = directory.path().join("heat.png");
    let run = predict(
        &server,
        &files[..1],
        &["--explain", out.to_str().unwrap(), "--json"],
    )
    .await;
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(fs_err::read(&out).unwrap(), [b'E', 30]);
    let object = &run.objects()[0];
    assert_eq!(object["explained"], out.to_str().unwrap());
    assert_eq!(object["explanation"]["years"][1], -0.5);
    assert_eq!(object["explanation"]["base_years"], 29.0);
    // Both kinds of drawn images may go into one directory.
    let both = directory.path().join("both");
    let both = both.to_str().unwrap();
    let options = ["--annotate", both, "--explain", both, "--json"];
    let run = predict(&server, &files, &options).await;
    assert_eq!(run.code, 0, "{}", run.stderr);
    let written = |option: &str| {
        let objects = run.objects();
        let path = objects[1][option].as_str().unwrap();
        fs_err::read(path).unwrap()
    };
    assert_eq!(written("annotated"), [b'P', 31]);
    assert_eq!(written("explained"), [b'E', 31]);
    let same = out.to_str().unwrap();
    let options = ["--annotate", same, "--explain", same];
    let run = predict(&server, &files[..1], &options).await;
    assert_eq!(run.code, 2);
    assert!(run.stderr.contains("cannot both write"), "{}", run.stderr);
}

#[tokio::test]
async fn faces_have_a_line_each_and_images_without_one_no_age() {
    let server = server(true);
    let (directory, _) = images(&[]);
    let file = |name: &str, bytes: &[u8]| {
        let path = directory.path().join(name);
        fs_err::write(&path, bytes).unwrap();
        path.display().to_string()
    };
    let files = [file("group.jpg", &[9, 41, 7]), file("wall.jpg", &[9])];
    let run = predict(&server, &files, &["--detect-faces"]).await;
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    let lines = run.lines();
    assert_eq!(lines.len(), 4, "{lines:?}");
    assert!(lines[0].contains("face  age"), "{}", lines[0]);
    for part in ["group.jpg", "1     41.0", "120x120 at -3, 41"] {
        assert!(lines[1].contains(part), "{}", lines[1]);
    }
    assert!(lines[2].contains("2     7.0"), "{}", lines[2]);
    assert!(lines[3].contains("wall.jpg") && lines[3].contains("none"));

    let heat = directory.path().join("heat");
    let options = [
        "--detect-faces",
        "--json",
        "--explain",
        heat.to_str().unwrap(),
    ];
    let run = predict(&server, &files, &options).await;
    assert_eq!(run.code, 0, "{}", run.stderr);
    let objects = run.objects();
    let told: Vec<_> = objects
        .iter()
        .map(|object| (object["face"].as_u64(), object["age"].as_f64()))
        .collect();
    assert_eq!(
        told,
        [(Some(1), Some(41.0)), (Some(2), Some(7.0)), (None, None)]
    );
    assert_eq!(objects[0]["faces"], 2);
    assert_eq!(objects[2]["faces"], 0);
    assert_eq!(objects[1]["box"]["left"], -3);
    assert_eq!(objects[1]["score"], 7.5);
    let explained = objects[1]["explained"].as_str().map(PathBuf::from);
    let expected = heat.join("group-face2.png");
    assert_eq!(fs_err::read(&expected).unwrap(), [b'F', 7]);
    assert_eq!(explained, Some(expected));
    // One image may have several faces, so a single file will not do.
    let png = directory.path().join("one.png");
    let options = ["--detect-faces", "--explain", png.to_str().unwrap()];
    let run = predict(&server, &files[..1], &options).await;
    assert_eq!(run.code, 2);
    assert!(run.stderr.contains("names a directory"), "{}", run.stderr);
}

#[tokio::test]
async fn what_an_old_server_does_not_have_is_not_asked_of_it() {
    let old = Fake::start(State {
        limits: Limits {
            max_message_bytes: 3024,
            max_image_bytes: 1500,
            max_images_per_request: 3,
            max_queued_images: 6,
            ..Limits::default()
        },
        ..State::default()
    });
    let (_directory, files) = images(&["a.jpg"]);
    let run = predict(&old, &files, &["--detect-faces"]).await;
    assert_eq!(run.code, 2);
    assert!(
        run.stderr.contains("has no detect_faces; update it"),
        "{}",
        run.stderr
    );
    assert!(old.state.predicted.lock().unwrap().is_empty());
}
