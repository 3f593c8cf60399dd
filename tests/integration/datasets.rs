//! Dataset checks: their findings, and their isolation from other work.

use std::{
    path::{Path, PathBuf},
    process::Output,
};

use tonic::{Code, Status};
use visage::proto::v1::{self, check_dataset_response::Kind};

use crate::support::{Server, code, files_of, reason, small_spec, wait_until};

fn request(dataset: &Path) -> v1::CheckDatasetRequest {
    v1::CheckDatasetRequest {
        dataset: Some(v1::DatasetSpec {
            path: dataset.to_str().unwrap().to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn datasets(
    server: &Server,
) -> v1::dataset_service_client::DatasetServiceClient<tonic::transport::Channel> {
    v1::dataset_service_client::DatasetServiceClient::new(server.channel())
}

/// The phases of a check without repetitions, and its report.
async fn check(
    server: &Server,
    request: v1::CheckDatasetRequest,
) -> Result<(Vec<String>, v1::DatasetCheck), Status> {
    let mut stream = datasets(server).check_dataset(request).await?.into_inner();
    let (mut phases, mut report) = (Vec::new(), None);
    while let Some(response) = stream.message().await? {
        assert_eq!(report, None, "the report is the last message");
        match response.kind.unwrap() {
            Kind::Progress(progress) => {
                assert!(progress.done <= progress.total, "{progress:?}");
                phases.push(progress.phase);
            }
            Kind::Report(found) => report = Some(found),
        }
    }
    phases.dedup();
    Ok((phases, report.unwrap()))
}

fn command(server: &Server, arguments: &[&str], dataset: &Path) -> Output {
    let check = ["dataset", "check", dataset.to_str().unwrap()];
    server.run(&[&check, arguments].concat())
}

/// Drawn faces in `train` and `val`, with one of each problem.
fn spoiled(server: &Server) -> PathBuf {
    let drawn = files_of(&server.faces("drawn", 20, 5));
    let directory = server.path("spoiled");
    let (train, val) = (directory.join("train"), directory.join("val"));
    for part in [&train, &val] {
        fs_err::create_dir_all(part).unwrap();
    }
    for (index, file) in drawn.iter().enumerate() {
        let part = if index < 14 { &train } else { &val };
        fs_err::copy(file, part.join(file.file_name().unwrap())).unwrap();
    }
    // The same file with another age, and one in both splits.
    fs_err::copy(&drawn[0], train.join("77_wrong_age.jpg")).unwrap();
    fs_err::copy(&drawn[1], val.join(drawn[1].file_name().unwrap())).unwrap();
    // Encoded again within a split, mirrored into the other.
    let open = |index: usize| {
        let bytes = fs_err::read(&drawn[index]).unwrap();
        image::load_from_memory(&bytes).unwrap()
    };
    let age = |index: usize| {
        let name = drawn[index].file_name().unwrap().to_str().unwrap();
        name.split('_').next().unwrap().to_owned()
    };
    let again = train.join(format!("{}_again.png", age(2)));
    open(2).save(again).unwrap();
    let mirrored = val.join(format!("{}_mirrored.png", age(3)));
    open(3).fliph().save(mirrored).unwrap();
    // Damaged after the header, without an age, and not an image.
    let damaged = train.join("30_damaged.png");
    open(4).save(&damaged).unwrap();
    let mut bytes = fs_err::read(&damaged).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 100].fill(0);
    fs_err::write(&damaged, bytes).unwrap();
    fs_err::copy(&drawn[5], train.join("anna.jpg")).unwrap();
    fs_err::write(directory.join("notes.txt"), "two of them are wrong").unwrap();
    directory
}

fn names(group: &v1::DuplicateGroup) -> Vec<&str> {
    group
        .images
        .iter()
        .map(|image| image.file.as_str())
        .collect()
}

#[tokio::test]
async fn a_check_finds_every_kind_of_problem() {
    let server = Server::start(&[]);
    let directory = spoiled(&server);
    let (phases, found) = check(&server, request(&directory)).await.unwrap();
    assert_eq!(phases.first().unwrap(), "scan");

    let dataset = found.dataset.as_ref().unwrap();
    let images: Vec<u64> = dataset.splits.iter().map(|split| split.images).collect();
    assert_eq!(images, [16, 8, 0]);
    assert_eq!(found.split_origin(), v1::SplitOrigin::Given);
    assert_eq!(found.ignored_files, 1);
    let of_ages: u64 = found
        .ages
        .iter()
        .map(|band| band.train + band.validation)
        .sum();
    assert_eq!(of_ages, 24);
    let rejects: Vec<(&str, u64)> = dataset
        .rejects
        .iter()
        .map(|reject| (reject.reason.as_str(), reject.count))
        .collect();
    assert_eq!(rejects, [("no_age", 1), ("corrupt", 1)]);

    let exact = found.exact.as_ref().unwrap();
    assert_eq!((exact.groups, exact.images), (2, 4));
    assert_eq!((exact.straddling_groups, exact.conflicting_groups), (1, 1));
    let (leak, conflict) = (&exact.listed[0], &exact.listed[1]);
    assert!(leak.straddles && !leak.conflicts && conflict.conflicts && !conflict.straddles);
    let splits: Vec<&str> = leak
        .images
        .iter()
        .map(|image| image.split.as_str())
        .collect();
    assert_eq!(splits, ["train", "validation"]);
    assert!(names(conflict).contains(&"train/77_wrong_age.jpg"));

    let near = found.near.as_ref().unwrap();
    assert_eq!(
        (near.groups, near.straddling_groups, near.max_distance),
        (2, 1, 32)
    );
    let (mirrored, again) = (&near.listed[0], &near.listed[1]);
    assert!(
        mirrored.straddles && mirrored.images[1].mirrored,
        "{mirrored:?}"
    );
    assert!(names(mirrored)[1].ends_with("_mirrored.png"));
    assert!(!again.straddles && !again.images[1].mirrored, "{again:?}");
    assert!(names(again).iter().any(|name| name.ends_with("_again.png")));
    assert_eq!(found.outliers, None);

    // Only some are listed, but all are counted.
    let mut asked = request(&directory);
    asked.max_listed = Some(1);
    asked.near_distance = Some(40);
    let (_, few) = check(&server, asked).await.unwrap();
    let near = few.near.unwrap();
    assert_eq!(
        (near.groups, near.listed.len(), near.max_distance),
        (2, 1, 40)
    );
    // Headers only.
    let mut asked = request(&directory);
    asked.skip_near_duplicates = true;
    let (phases, quick) = check(&server, asked).await.unwrap();
    assert_eq!((quick.near, quick.exact.unwrap().groups), (None, 2));
    assert!(!phases.contains(&"compare".to_owned()));
    let rejects = quick.dataset.unwrap().rejects;
    assert_eq!(rejects.len(), 1, "{rejects:?}");

    command_line(&server, &directory);
}

/// The same check by the command line.
fn command_line(server: &Server, directory: &Path) {
    let output = command(server, &[], directory);
    let (text, errors) = (
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    );
    assert!(output.status.success(), "{errors}");
    for line in [
        ": 24 images, splits from the dataset",
        "  2 files left out: 1 no age (train/anna.jpg); 1 corrupt (train/30_damaged.png)",
        "split       images  mean age",
        "Byte-identical images: 4 in 2 groups; 1 group is in several splits, 1 has different ages",
        "Images that look the same (up to 32 of 256 bits apart): 4 in 2 groups; 1 group is in several splits, 0 have",
        " mirrored  val/",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    // Leaks fail the command only with --strict.
    let strict = command(server, &["--strict", "--json"], directory);
    assert_eq!(strict.status.code(), Some(1));
    let object: serde_json::Value = serde_json::from_slice(&strict.stdout).unwrap();
    assert_eq!(object["near"]["straddling_groups"], 1);
    assert_eq!(object["exact"]["listed"][0]["images"][0]["split"], "train");
    let complaint = String::from_utf8(strict.stderr).unwrap();
    assert_eq!(complaint, "2 groups of images are in several splits.\n");
    let clean = command(server, &["--strict"], &server.path("drawn"));
    assert_eq!(clean.status.code(), Some(0));
    assert!(
        String::from_utf8(clean.stdout)
            .unwrap()
            .contains("Byte-identical images: none")
    );
}

#[tokio::test]
async fn doubtful_labels_are_those_outside_the_intervals() {
    let server = Server::start(&[]);
    let faces = server.faces("faces", 200, 1);
    let mut spec = v1::TrainingSpec {
        // The precision of Predict.
        precision: v1::Precision::F32.into(),
        ..small_spec(&faces)
    };
    spec.dataset.as_mut().unwrap().validation_fraction = Some(0.2);
    let training = server.ended(&server.queue(spec).await).await;
    assert_eq!(training.state(), v1::TrainingState::Succeeded);

    // No drawn face is older than 90, so this label is wrong.
    let child = files_of(&faces).into_iter().find(|file| {
        file.file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .starts_with("1_")
    });
    let checked = server.path("checked");
    fs_err::create_dir(&checked).unwrap();
    for file in files_of(&faces) {
        fs_err::copy(&file, checked.join(file.file_name().unwrap())).unwrap();
    }
    fs_err::copy(child.unwrap(), checked.join("119_wrong.jpg")).unwrap();

    let mut asked = request(&checked);
    asked.model_version = "models/age/versions/live".to_owned();
    asked.max_listed = Some(1_000);
    let (_, found) = check(&server, asked).await.unwrap();
    let outliers = found.outliers.unwrap();
    assert_eq!(outliers.model_version, training.model_version);
    assert_eq!((outliers.images, outliers.skipped_images), (201, 0));

    // Predictions of the same files at that level.
    let mut expected = Vec::new();
    let files = files_of(&checked);
    for group in files.chunks(40) {
        let images = group.iter().map(|file| fs_err::read(file).unwrap().into());
        let asked = v1::PredictRequest {
            images: images.collect(),
            interval_level: Some(outliers.level),
            ..Default::default()
        };
        let answer = server.predictions().predict(asked).await.unwrap();
        for (file, one) in group.iter().zip(answer.into_inner().predictions) {
            let name = file.file_name().unwrap().to_str().unwrap().to_owned();
            let age: f64 = name.split('_').next().unwrap().parse().unwrap();
            let interval = one.interval.unwrap();
            assert_eq!(interval.confidence, outliers.level);
            // A validation image is at the end of its interval, except for rounding.
            if age < interval.lower - 0.01 || age > interval.upper + 0.01 {
                let half = interval.upper - one.age;
                expected.push((name, (age - one.age).abs() / half));
            }
        }
    }
    expected.sort_by(|one, other| other.1.total_cmp(&one.1));
    assert_eq!(outliers.outside, expected.len() as u64);
    for (listed, (name, ratio)) in outliers.listed.iter().zip(&expected) {
        assert_eq!(&listed.file, name);
        // Equal except for the order of additions in a batch.
        assert!((listed.ratio - ratio).abs() < 1e-3, "{listed:?} {ratio}");
    }
    assert_eq!(outliers.listed[0].file, "119_wrong.jpg");

    let output = command(&server, &["--model", "live", "--list", "3"], &checked);
    let text = String::from_utf8(output.stdout).unwrap();
    let headline = format!(
        "interval of {}: {} of 201 images",
        training.model_version,
        expected.len()
    );
    assert!(text.contains(&headline), "{text}");
    assert!(
        text.lines()
            .last()
            .is_some_and(|line| line.split_whitespace().count() >= 6),
        "{text}"
    );
}

/// A check, a training and an evaluation agree on a split.
#[tokio::test]
async fn a_training_groups_near_duplicates_on_request() {
    let server = Server::start(&[]);
    let faces = server.faces("faces", 60, 2);
    for file in files_of(&faces) {
        let name = file.file_name().unwrap().to_str().unwrap();
        let image = image::load_from_memory(&fs_err::read(&file).unwrap()).unwrap();
        let (age, _) = name.split_once('_').unwrap();
        let stem = name.split('.').next().unwrap();
        image
            .fliph()
            .save(faces.join(format!("{age}_of_{stem}.png")))
            .unwrap();
    }
    let check_with = async |grouping: v1::SplitGrouping| {
        let mut asked = request(&faces);
        asked.dataset.as_mut().unwrap().split_grouping = grouping.into();
        check(&server, asked).await.unwrap().1
    };
    let exact = check_with(v1::SplitGrouping::Unspecified).await;
    let near = check_with(v1::SplitGrouping::Near).await;
    assert_eq!(exact.split_origin(), v1::SplitOrigin::Made);
    let groups = |check: &v1::DatasetCheck| {
        let near = check.near.as_ref().unwrap();
        (near.groups, near.straddling_groups > 0)
    };
    assert_eq!((groups(&exact), groups(&near)), ((60, true), (60, false)));

    let mut spec = small_spec(&faces);
    spec.dataset.as_mut().unwrap().split_grouping = v1::SplitGrouping::Near.into();
    let training = server.ended(&server.queue(spec).await).await;
    assert_eq!(
        training.state(),
        v1::TrainingState::Succeeded,
        "{training:#?}"
    );
    let resolved = training.resolved_spec.unwrap().dataset.unwrap();
    assert_eq!(resolved.split_grouping(), v1::SplitGrouping::Near);
    let digest = training.dataset.unwrap().digest;
    assert_eq!(near.dataset.unwrap().digest, digest);
    assert_ne!(exact.dataset.unwrap().digest, digest);

    // An evaluation without a grouping uses that of the training.
    let asked = v1::EvaluateModelVersionRequest {
        dataset: request(&faces).dataset,
        split: v1::DatasetSplit::Test.into(),
        ..Default::default()
    };
    let stream = server.models().evaluate_model_version(asked).await;
    let mut stream = stream.unwrap().into_inner();
    let mut evaluated = None;
    while let Some(response) = stream.message().await.unwrap() {
        if let Some(v1::evaluate_model_version_response::Kind::Report(report)) = response.kind {
            evaluated = Some(report);
        }
    }
    let evaluated = evaluated.unwrap();
    assert_eq!(evaluated.dataset_digest, digest);
    let images = evaluated.evaluation.unwrap().images;
    assert_eq!(images, training.test.unwrap().images);
}

#[tokio::test]
async fn invalid_checks_are_refused_with_a_reason() {
    let outside = tempfile::tempdir().unwrap();
    let inside = tempfile::tempdir().unwrap();
    let root = inside.path().to_str().unwrap().to_owned();
    let server = Server::start(&["--data-roots", &root]);
    let faces = crate::support::faces(&inside.path().join("faces"), 4, 3);
    let with = |change: fn(&mut v1::CheckDatasetRequest)| {
        let mut asked = request(&faces);
        change(&mut asked);
        asked
    };
    let empty = inside.path().join("empty");
    fs_err::create_dir(&empty).unwrap();
    let cases = [
        (
            v1::CheckDatasetRequest::default(),
            "dataset.path: must not be empty",
        ),
        (request(outside.path()), "dataset.path: "),
        (request(&empty), "dataset.path: "),
        (
            with(|asked| asked.near_distance = Some(41)),
            "near_distance: must be from 0 to 40, got 41",
        ),
        (
            with(|asked| asked.max_listed = Some(1_001)),
            "max_listed: must be from 0 to 1000, got 1001",
        ),
        (
            with(|asked| asked.dataset.as_mut().unwrap().split_grouping = 9),
            "dataset.split_grouping: must be a value that this server knows, got 9",
        ),
        (
            with(|asked| asked.model_version = "versions/1".to_owned()),
            "model_version: ",
        ),
    ];
    for (asked, expected) in cases {
        let refused = check(&server, asked).await.map(drop).unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        assert!(
            refused.message().starts_with(expected),
            "{}",
            refused.message()
        );
    }
    let outside = check(&server, request(outside.path()))
        .await
        .map(drop)
        .unwrap_err();
    assert!(
        outside
            .message()
            .contains("outside the allowed directories (data_roots)"),
        "{outside}"
    );
    let live = with(|asked| asked.model_version = "models/age/versions/live".to_owned());
    let refused = check(&server, live).await.map(drop);
    assert_eq!(code(&refused), Code::FailedPrecondition);
    assert_eq!(reason(&refused.unwrap_err()), "NO_LIVE_MODEL");
    let absent = with(|asked| asked.model_version = "models/age/versions/7".to_owned());
    assert_eq!(
        code(&check(&server, absent).await.map(drop)),
        Code::NotFound
    );
    // All violations at once.
    let mut bad = request(&faces);
    (bad.near_distance, bad.max_listed) = (Some(99), Some(9_999));
    bad.dataset.as_mut().unwrap().max_reject_share = Some(7.0);
    let refused = check(&server, bad).await.map(drop).unwrap_err();
    assert!(
        refused.message().contains("and 2 more violations"),
        "{refused}"
    );
    // Too few images for a training are a warning.
    let (_, few) = check(&server, request(&faces)).await.unwrap();
    let warnings = few.dataset.unwrap().warnings;
    let fails = |line: &String| line.starts_with("a training would fail: ");
    assert!(warnings.iter().any(fails), "{warnings:?}");
}

/// Checks are limited in number, have the lowest priority, and end with their client.
#[tokio::test]
async fn a_check_leaves_predict_alone_and_ends_with_its_client() {
    let server = Server::start(&[]);
    server.train_small().await;
    // 16 million pixels each, so that a check takes long; one file under many names.
    let large = server.path("large");
    fs_err::create_dir(&large).unwrap();
    let first = large.join("30_0.png");
    image::RgbImage::from_fn(4_000, 4_000, |x, y| {
        image::Rgb([(x / 16) as u8, (y / 16) as u8, 9])
    })
    .save(&first)
    .unwrap();
    for number in 1..2_000 {
        fs_err::hard_link(&first, large.join(format!("30_{number}.png"))).unwrap();
    }
    let mut running = Vec::new();
    for _ in 0..2 {
        let stream = datasets(&server).check_dataset(request(&large)).await;
        running.push(stream.unwrap().into_inner());
    }
    let refused = datasets(&server).check_dataset(request(&large)).await;
    assert_eq!(code(&refused), Code::ResourceExhausted);
    assert_eq!(reason(&refused.unwrap_err()), "TOO_MANY_CHECKS");
    for stream in &mut running {
        let scans = |kind: &Kind| match kind {
            Kind::Progress(progress) => progress.phase == "scan" && progress.done > 0,
            Kind::Report(_) => panic!("it is over: {kind:?}"),
        };
        while !scans(&stream.message().await.unwrap().unwrap().kind.unwrap()) {}
    }
    // Threads of the lowest priority read them, and no other thread of the server is slowed down.
    assert!(niced_threads(server.pid()) >= 2);
    for _ in 0..5 {
        server.predict().await.unwrap();
    }
    drop(running);
    wait_until("the threads of both have ended", || async {
        niced_threads(server.pid()) == 0
    })
    .await;
    let faces = server.path("small");
    for _ in 0..3 {
        let (_, found) = check(&server, request(&faces)).await.unwrap();
        assert_eq!(found.dataset.unwrap().splits.len(), 3);
    }
    wait_until("the threads of the last check have ended too", || async {
        niced_threads(server.pid()) == 0
    })
    .await;
}

/// Threads of a process at the lowest priority (`proc(5)`: the 19th field of `stat`).
fn niced_threads(pid: u32) -> usize {
    let tasks = fs_err::read_dir(format!("/proc/{pid}/task")).unwrap();
    tasks
        .filter(|task| {
            let path = task.as_ref().unwrap().path().join("stat");
            // The thread may have ended meanwhile.
            let stat = fs_err::read_to_string(path).unwrap_or_default();
            let fields = stat.rsplit_once(") ").map(|(_, rest)| rest.split(' '));
            fields.and_then(|mut fields| fields.nth(16)) == Some("19")
        })
        .count()
}
