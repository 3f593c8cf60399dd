//! The command line against a real server: what its flags request and what it prints.

use std::{path::Path, process::Output};

use image::{Rgb, RgbImage};
use serde_json::Value;

use crate::{
    faces::group,
    support::{Server, files_of, text_of},
};

fn lines(output: &Output) -> Vec<String> {
    assert!(output.status.success(), "{}", text_of(output));
    let stdout = String::from_utf8(output.stdout.clone()).unwrap();
    stdout.lines().map(str::to_owned).collect()
}

/// Each line of stdout as JSON.
fn objects(output: &Output) -> Vec<Value> {
    let lines = lines(output);
    let parse = |line: &String| serde_json::from_str(line).unwrap();
    lines.iter().map(parse).collect()
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

#[tokio::test]
async fn trainings_and_models_are_listed_registered_promoted_and_evaluated() {
    let server = Server::start(&[]);
    let version = server.train_small().await;
    assert_eq!(version, "models/age/versions/1");

    let listed = lines(&server.run(&["trainings", "list", "--state", "succeeded"]));
    assert_eq!(words(&listed[0])[..2], ["ID", "STATE"]);
    let row = words(&listed[1]);
    assert_eq!((row[1], row[2], row[5]), ("SUCCEEDED", "2/2", "1"));
    let id = row[0].to_owned();
    let checkpoints = lines(&server.run(&["trainings", "checkpoints", &id]));
    let best = checkpoints
        .iter()
        .find(|line| line.contains(" best "))
        .unwrap();
    let row = words(best);
    assert_eq!(row[4], "MiB", "{best}");
    assert_eq!(row[6], format!("trainings/{id}/checkpoints/{}", row[0]));
    let stopped = server.run(&["trainings", "stop", &id]);
    assert_eq!(stopped.status.code(), Some(1));
    assert!(
        text_of(&stopped).starts_with("error: "),
        "{}",
        text_of(&stopped)
    );

    let file = server.path("best.safetensors");
    let output = file.to_str().unwrap();
    let described = objects(&server.run(&["--json", "trainings", "download", &id, "-o", output]));
    let bytes = fs_err::metadata(&file).unwrap().len();
    assert_eq!(described[0]["size_bytes"], bytes);

    let registered = objects(&server.run(&["--json", "models", "register", &id]));
    assert_eq!(registered[0]["version"], 2);
    let deleted = server.run(&["models", "delete", "1"]);
    assert_eq!(deleted.status.code(), Some(1), "{}", text_of(&deleted));
    assert_eq!(
        text_of(&deleted),
        "error: models/age/versions/1 is in use by the alias live\n  \
         `visage models promote N` makes another version live\n"
    );
    let deleted = server.run(&["models", "delete", "live"]);
    assert_eq!(deleted.status.code(), Some(2), "{}", text_of(&deleted));
    assert!(
        text_of(&deleted).contains("got the alias live of version 1"),
        "{}",
        text_of(&deleted)
    );
    let moved = ["models", "alias", "set", "live", "2", "--expected", "0"];
    let refused = server.run(&moved);
    assert_eq!(refused.status.code(), Some(1), "{}", text_of(&refused));
    let moved = ["models", "alias", "set", "live", "2", "--expected", "1"];
    assert_eq!(
        lines(&server.run(&moved)),
        ["live: version 1 -> 2 (previous: 1)"]
    );
    assert_eq!(
        lines(&server.run(&["models", "rollback"])),
        ["live: version 2 -> 1 (previous: 2)"]
    );
    assert_eq!(
        lines(&server.run(&["model", "promote", "2"])),
        ["live: version 1 -> 2 (previous: 1)"]
    );
    let unconfirmed = server.run(&["models", "alias", "delete", "live"]);
    assert_eq!(unconfirmed.status.code(), Some(2));
    let history = lines(&server.run(&["models", "history", "--limit", "2"]));
    assert_eq!(history.len(), 3);
    let listed = objects(&server.run(&["models", "list", "--json"]));
    assert_eq!(listed[0]["aliases"][0], "live");

    evaluations(&server);
}

/// The flags of `visage evaluate`, and the stored evaluation without them.
fn evaluations(server: &Server) {
    let stored = lines(&server.run(&["evaluate", "--version", "1"]));
    assert!(
        stored[0].starts_with("models/age/versions/1, from trainings/"),
        "{stored:?}"
    );
    assert!(stored[1].starts_with("Test on "), "{stored:?}");
    assert!(
        stored.iter().any(|line| line == "Largest errors:"),
        "{stored:?}"
    );
    let faces = server.path("small");
    let flags = [
        "--split",
        "val",
        "--interval",
        "0.5",
        "--max-age",
        "90",
        "--predictions",
    ];
    let evaluate = ["--json", "evaluate", "--dataset", faces.to_str().unwrap()];
    let report = objects(&server.run(&[&evaluate[..], &flags].concat())).remove(0);
    assert_eq!(report["split"], "DATASET_SPLIT_VALIDATION");
    assert_eq!(report["evaluation"]["interval_coverage"]["level"], 0.5);
    let images = report["evaluation"]["images"].as_u64().unwrap();
    assert_eq!(
        report["predictions"].as_array().unwrap().len() as u64,
        images
    );
    assert_eq!(report.get("predicted_plot_png"), None);
}

#[tokio::test]
async fn predictions_are_printed_and_drawn_images_written() {
    let server = Server::start(&["--starter"]);
    let faces = files_of(&server.faces("faces", 2, 3));
    let [first, second] = [&faces[0], &faces[1]].map(|path| path.to_str().unwrap());
    let predict = |more: &[&str]| server.run(&[&["--json", "predict", first], more].concat());

    let table = lines(&server.run(&["predict", first, second, "--interval", "0.8"]));
    assert!(table[0].contains("80% interval"), "{table:?}");
    assert_eq!(table.len(), 3);
    assert!(table[2].starts_with(second) && table[2].ends_with("models/age/versions/1"));

    let object = objects(&predict(&["--model", "live"])).remove(0);
    assert_eq!(
        (&object["width"], &object["height"]),
        (&64.into(), &64.into())
    );
    assert!(object["durations"]["inference"].is_string(), "{object}");
    assert!(object["interval"]["lower"].as_f64() <= object["age"].as_f64());
    let missing = predict(&["--model", "99"]);
    assert_eq!(missing.status.code(), Some(1), "{}", text_of(&missing));

    // One image is drawn to a file, several into a directory, which both options may share.
    let png = server.path("heat.png");
    let object = objects(&predict(&["--explain", png.to_str().unwrap()])).remove(0);
    assert_eq!(object["explained"], png.to_str().unwrap());
    assert!(object["explanation"]["base_years"].is_number(), "{object}");
    assert_is_png(&png);
    let both = server.path("both");
    let both = both.to_str().unwrap();
    for object in objects(&predict(&[second, "--annotate", both, "--explain", both])) {
        for option in ["annotated", "explained"] {
            assert_is_png(Path::new(object[option].as_str().unwrap()));
        }
    }
    for refused in [
        &["--annotate", "out.jpg"][..],
        &[second, "--annotate", "all.png"],
        &["--annotate", "same.png", "--explain", "same.png"],
        &["--detect-faces", "--explain", "one.png"],
    ] {
        let output = predict(refused);
        assert_eq!(output.status.code(), Some(2), "{}", text_of(&output));
    }
}

/// A line per face, and a line without an age for an image without faces.
#[tokio::test]
async fn detected_faces_have_a_line_each() {
    let server = Server::start(&["--starter"]);
    let wall = server.path("wall.png");
    RgbImage::from_pixel(300, 200, Rgb([90, 90, 90]))
        .save(&wall)
        .unwrap();
    let portrait = server.path("portrait.png");
    group(400, 300, &[(100, 50)]).save(&portrait).unwrap();
    let files = [portrait.to_str().unwrap(), wall.to_str().unwrap()];
    let heat = server.path("heat");
    let options = [
        "--json",
        "predict",
        "--detect-faces",
        "--explain",
        heat.to_str().unwrap(),
    ];
    let found = objects(&server.run(&[&options[..], &files].concat()));
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!(
        (&found[0]["face"], &found[0]["faces"]),
        (&1.into(), &1.into())
    );
    assert!(found[0]["age"].is_number() && found[0]["box"]["width"].is_number());
    let explained = Path::new(found[0]["explained"].as_str().unwrap());
    assert_eq!(explained, heat.join("portrait-face1.png"));
    assert_is_png(explained);
    assert_eq!(
        (&found[1]["faces"], &found[1]["age"]),
        (&0.into(), &Value::Null)
    );
    let table = lines(&server.run(&[&["predict", "--detect-faces"], &files[..]].concat()));
    assert!(table[0].contains("face  age"), "{table:?}");
    assert!(
        table[2].contains("wall.png") && table[2].contains("none"),
        "{table:?}"
    );
}

fn assert_is_png(path: &Path) {
    let bytes = fs_err::read(path).unwrap();
    assert!(bytes.starts_with(b"\x89PNG"), "{}", path.display());
}
