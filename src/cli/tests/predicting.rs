use tempfile::TempDir;

use crate::{
    cli::tests::{
        Run,
        fake::{Fake, State},
        visage,
    },
    proto::v1::Limits,
};

/// A server that accepts three images and 2,000 bytes of images per request.
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
        ..State::default()
    })
}

/// Files whose ages are 30, 31 and so on, and bad files by name.
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

async fn predict(server: &Fake, files: &[String], more: &[&str]) -> Run {
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
async fn a_bad_file_is_reported_and_the_others_are_predicted() {
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
        "is 1.5 KiB large, above the server's limit of 1.5 KiB per image"
    );
    assert_eq!(error(4), "is empty");
    assert!(
        error(6).contains("is a directory; name its files"),
        "{}",
        error(6)
    );
    assert_eq!(error(7), "file not found");
    assert!(
        run.stderr
            .contains(&format!("{}: is not an image\n", files[1])),
        "{}",
        run.stderr
    );
    assert_eq!(group_sizes(&server).iter().max(), Some(&3));
}

#[tokio::test]
async fn a_bad_file_without_an_index_is_found_one_by_one() {
    let server = server(false);
    let (_directory, files) = images(&["a.jpg", "bad.jpg", "c.jpg"]);
    let run = predict(&server, &files, &["--json"]).await;
    assert_eq!(run.code, 1);
    assert_eq!(run.objects()[1]["error"], "an image cannot be read");
    assert_eq!(run.objects()[2]["age"], 32.0);
    assert_eq!(group_sizes(&server), [3, 1, 1, 1]);
}

#[tokio::test]
async fn a_feature_that_an_old_server_lacks_is_not_requested() {
    let old = server(true);
    let (_directory, files) = images(&["a.jpg"]);
    let run = predict(&old, &files, &["--detect-faces"]).await;
    assert_eq!(run.code, 2);
    assert!(
        run.stderr
            .contains("does not support detect_faces; update it"),
        "{}",
        run.stderr
    );
    assert!(old.state.predicted.lock().unwrap().is_empty());
}
