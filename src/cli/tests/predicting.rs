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
    assert_eq!(error(6), "file not found");
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

#[tokio::test]
async fn a_directory_becomes_a_table_with_a_row_for_each_image() {
    let server = server(true);
    let names = ["a, \"b\".jpg", "bad.jpg", "c.jpg", "empty.jpg"];
    let (directory, files) = images(&names);
    let dir = directory.path().display().to_string();
    let table = directory.path().join("ages.csv").display().to_string();
    let run = predict(&server, std::slice::from_ref(&dir), &["-o", &table]).await;
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    assert_eq!(
        run.lines(),
        [format!("{table}: 4 images: 2 predicted, 2 failed")]
    );
    let text = fs_err::read_to_string(&table).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[0],
        "file,face,age,interval_lower,interval_upper,interval_level,image_width,image_height,\
         face_left,face_top,face_width,face_height,model_version,error"
    );
    let quoted = files[0].replace('"', "\"\"");
    let version = "models/age/versions/3";
    assert_eq!(
        lines[1..],
        [
            format!("\"{quoted}\",,30.00,,,,0,0,,,,,{version},"),
            format!("{},,,,,,,,,,,,,is not an image", files[1]),
            format!("{},,32.00,,,,0,0,,,,,{version},", files[2]),
            format!("{},,,,,,,,,,,,,is empty", files[3]),
        ]
    );
    // The table of the first run is not an image.
    let lines_file = directory.path().join("ages.jsonl").display().to_string();
    let mixed = [files[2].clone(), dir];
    let run = predict(&server, &mixed, &["-o", &lines_file, "--json"]).await;
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(run.objects()[0]["images"], 5);
    assert_eq!(run.objects()[0]["failed"], 2);
    let text = fs_err::read_to_string(&lines_file).unwrap();
    let objects: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(objects.len(), 5);
    assert_eq!(
        (&objects[0]["age"], &objects[0]["file"]),
        (&32.0.into(), &files[2].as_str().into())
    );
    assert_eq!(objects[2]["error"], "is not an image");
}

#[tokio::test]
async fn a_table_fails_only_if_no_image_was_predicted() {
    let server = server(true);
    let (directory, files) = images(&["bad.jpg", "empty.jpg"]);
    let table = directory.path().join("ages.csv").display().to_string();
    let run = predict(&server, &files, &["-o", &table]).await;
    assert_eq!(run.code, 1, "{}", run.stderr);
    assert!(run.stdout.ends_with("2 images: 0 predicted, 2 failed\n"));
    let empty = directory.path().join("none");
    fs_err::create_dir(&empty).unwrap();
    let nothing = [empty.display().to_string()];
    let run = predict(&server, &nothing, &[]).await;
    assert_eq!(run.code, 2);
    assert!(
        run.stderr.contains("none contains no image"),
        "{}",
        run.stderr
    );
    let run = predict(&server, &files, &["-o", "ages.xlsx"]).await;
    assert_eq!(run.code, 2);
    assert!(
        run.stderr
            .contains("must end in .csv or .jsonl, got ages.xlsx")
    );
}
