//! The live version after trainings with each promotion rule, and the images that versions were
//! trained on.

use std::path::{Path, PathBuf};

use visage::{
    proto::v1::{
        self, DatasetSplit, HeadBias, InitKind, Promote, TrainingState, training_event::Kind,
    },
    testing::{read_weights, to_pth},
};

use crate::support::{Server, files_of, small_spec};

async fn train(server: &Server, spec: v1::TrainingSpec) -> (v1::Training, v1::Promotion) {
    let training = server.ended(&server.queue(spec).await).await;
    assert_eq!(training.state(), TrainingState::Succeeded, "{training:#?}");
    let created = server
        .events(&training.name)
        .await
        .into_iter()
        .find_map(|event| match event.kind {
            Some(Kind::ModelVersionCreated(created)) => Some(created),
            _ => None,
        })
        .unwrap();
    assert_eq!(created.model_version, training.model_version);
    assert_eq!(created.promotion, training.promotion);
    let promotion = training.promotion.clone().unwrap();
    assert_eq!(promotion.promoted, created.promoted);
    (training, promotion)
}

async fn version(server: &Server, which: &str) -> Option<v1::ModelVersion> {
    let request = v1::GetModelVersionRequest {
        name: format!("models/age/versions/{which}"),
    };
    let response = server.models().get_model_version(request).await;
    response.ok()?.into_inner().version
}

async fn version_of(server: &Server, alias: &str) -> u64 {
    let version = version(server, alias).await;
    version.map_or(0, |version| version.version)
}

/// A training with four tenths of the images for validation.
fn spec(faces: &Path, promote: Promote) -> v1::TrainingSpec {
    let mut spec = v1::TrainingSpec {
        promote: promote.into(),
        max_epochs: Some(1),
        precision: v1::Precision::F32.into(),
        ..small_spec(faces)
    };
    spec.dataset.as_mut().unwrap().validation_fraction = Some(0.4);
    spec
}

/// A training whose weights stay random, so that it predicts ages near 0.
fn bad_spec(faces: &Path, promote: Promote) -> v1::TrainingSpec {
    v1::TrainingSpec {
        head_bias: HeadBias::Keep.into(),
        optimizer: Some(v1::OptimizerSpec {
            learning_rate: Some(1e-12),
            ..Default::default()
        }),
        ..spec(faces, promote)
    }
}

fn images(training: &v1::Training, split: &str) -> u64 {
    let splits = &training.dataset.as_ref().unwrap().splits;
    let found = splits.iter().find(|one| one.split == split);
    found.map_or(0, |split| split.images)
}

/// The report of a version on a dataset.
async fn evaluate(
    server: &Server,
    version: &str,
    faces: &Path,
    split: DatasetSplit,
) -> v1::EvaluationReport {
    let request = v1::EvaluateModelVersionRequest {
        name: version.to_owned(),
        dataset: Some(v1::DatasetSpec {
            path: faces.to_str().unwrap().to_owned(),
            ..Default::default()
        }),
        split: split.into(),
        ..Default::default()
    };
    let stream = server.models().evaluate_model_version(request).await;
    let mut stream = stream.unwrap().into_inner();
    while let Some(response) = stream.message().await.unwrap() {
        if let Some(v1::evaluate_model_version_response::Kind::Report(report)) = response.kind {
            return report;
        }
    }
    panic!("the evaluation has no report");
}

/// Downloads a file of a version to a directory.
async fn download(server: &Server, version: &str, file: &str, directory: &Path) -> PathBuf {
    let request = v1::DownloadModelFileRequest {
        name: version.to_owned(),
        file: file.to_owned(),
    };
    let stream = server.models().download_model_file(request).await;
    let mut stream = stream.unwrap().into_inner();
    let mut bytes = Vec::new();
    while let Some(part) = stream.message().await.unwrap() {
        bytes.extend_from_slice(&part.data);
    }
    fs_err::create_dir_all(directory).unwrap();
    let path = directory.join(file);
    fs_err::write(&path, bytes).unwrap();
    path
}

fn from_file(path: &Path) -> v1::InitSpec {
    v1::InitSpec {
        kind: InitKind::Path.into(),
        path: path.to_str().unwrap().to_owned(),
        ..Default::default()
    }
}

#[tokio::test]
async fn live_moves_by_the_promotion_policy() {
    let server = Server::start(&[]);
    let faces = server.faces("faces", 200, 1);

    // NEVER creates a version without an alias, so Predict still has no model.
    let (_, never) = train(&server, bad_spec(&faces, Promote::Never)).await;
    assert!(!never.promoted);
    let refused = server.predict().await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
    assert_eq!(crate::support::reason(&refused), "NO_LIVE_MODEL");

    // IF_BETTER without a live version.
    let (first, promotion) = train(&server, bad_spec(&faces, Promote::IfBetter)).await;
    assert!(promotion.promoted);
    assert_eq!(promotion.live_version, "");
    assert_eq!(version_of(&server, "live").await, 2);
    assert_eq!(version_of(&server, "previous").await, 0);

    // The same training has the same loss on the same images, which is not better.
    let (same, promotion) = train(&server, bad_spec(&faces, Promote::IfBetter)).await;
    let val_loss = first.best.unwrap().val_loss;
    assert_eq!(same.best.unwrap().val_loss, val_loss);
    assert!(!promotion.promoted, "{promotion:?}");
    let ratio = promotion.mse / promotion.live_mse;
    assert!((ratio - 1.0).abs() < 1e-9, "{promotion:?}");
    assert_eq!(promotion.images, images(&same, "validation"));
    assert_eq!(version_of(&server, "live").await, 2);

    // A better one on other images, that both are compared on.
    let others = server.faces("others", 200, 9);
    let (better, promotion) = train(&server, spec(&others, Promote::IfBetter)).await;
    assert!(promotion.promoted, "{promotion:?}");
    assert_eq!(promotion.live_version, "models/age/versions/2");
    assert_eq!(promotion.images, images(&better, "validation"));
    assert_eq!(promotion.excluded_images, 0);
    assert_eq!(version_of(&server, "live").await, 4);
    assert_eq!(version_of(&server, "previous").await, 2);
    let (validation, first) = (DatasetSplit::Validation, "models/age/versions/2");
    for (version, mse) in [
        (first, promotion.live_mse),
        (better.model_version.as_str(), promotion.mse),
    ] {
        let report = evaluate(&server, version, &others, validation).await;
        let evaluation = report.evaluation.unwrap();
        assert_eq!(evaluation.images, promotion.images);
        let ratio = evaluation.mse / mse;
        assert!((ratio - 1.0).abs() < 1e-3, "{} {mse}", evaluation.mse);
    }
    let sentence = format!(
        "version 4: {:.2}, live version 2: {:.2} on the same images -> promoted",
        promotion.mse, promotion.live_mse
    );
    assert!(promotion.reason.starts_with(&sentence), "{promotion:?}");
    let id = better.name.trim_start_matches("trainings/");
    let shown = server.run(&["trainings", "get", id]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains(&sentence), "{shown}");

    // ALWAYS, even if worse.
    let (_, promotion) = train(&server, bad_spec(&others, Promote::Always)).await;
    assert!(promotion.promoted);
    assert_eq!(version_of(&server, "live").await, 5);
    assert_eq!(
        server.predict().await.unwrap().model_version,
        "models/age/versions/5"
    );

    // Rolled back by one call; `previous` points to the version that was live.
    let request = v1::SetAliasRequest {
        name: "models/age/versions/previous".to_owned(),
        alias: "live".to_owned(),
        expected_version: Some(5),
    };
    server.models().set_alias(request).await.unwrap();
    assert_eq!(version_of(&server, "live").await, 4);
    assert_eq!(version_of(&server, "previous").await, 5);
    let answer = server.predict().await.unwrap();
    assert_eq!(answer.model_version, "models/age/versions/4");

    let history = v1::ListAliasEventsRequest::default();
    let events = server.models().list_alias_events(history).await.unwrap();
    let events = events.into_inner().events;
    let live: Vec<_> = events
        .iter()
        .filter(|event| event.alias == "live")
        .map(|event| (event.from_version, event.to_version, event.cause.as_str()))
        .collect();
    assert_eq!(
        live,
        [
            (5, 4, "set"),
            (4, 5, "promote"),
            (2, 4, "promote"),
            (0, 2, "promote")
        ]
    );
}

#[tokio::test]
async fn training_images_are_inherited_and_excluded_from_a_comparison() {
    let server = Server::start(&[]);
    let faces = server.faces("faces", 160, 1);
    let (first, _) = train(&server, bad_spec(&faces, Promote::IfBetter)).await;
    let one = version(&server, "1").await.unwrap();
    assert!(one.training_images_recorded);
    assert_eq!(first.test.as_ref().unwrap().trained_on_images, Some(0));

    // A child on the same images with other splits: its parent was trained on some of them.
    let parent = server.path("parent");
    for name in ["model.safetensors", "manifest.json", "training-images.bin"] {
        download(&server, "models/age/versions/1", name, &parent).await;
    }
    let child = v1::TrainingSpec {
        init: Some(from_file(&parent.join("model.safetensors"))),
        head_bias: HeadBias::MeanAge.into(),
        seed: Some(7),
        ..spec(&faces, Promote::IfBetter)
    };
    let (child, promotion) = train(&server, child).await;
    let validation = images(&child, "validation");
    assert!(validation >= 50, "{validation}");
    assert!(!promotion.promoted, "{promotion:?}");
    assert_eq!((promotion.images, promotion.mse), (0, 0.0));
    let (excluded, rest) = (
        promotion.excluded_images,
        validation - promotion.excluded_images,
    );
    assert!(excluded > 0 && rest < 50, "{promotion:?}");
    let part = match rest {
        0 => format!("they were trained on all {excluded} validation images"),
        rest => format!(
            "they were trained on {excluded} of the {validation} validation images, which leaves {rest} of the required 50"
        ),
    };
    assert!(promotion.reason.contains(&part), "{promotion:?}");
    assert_eq!(version_of(&server, "live").await, 1);

    // The child was trained on the images of both trainings: all but those that both held back.
    let all = evaluate(&server, &child.model_version, &faces, DatasetSplit::All).await;
    let trained_on = all.evaluation.unwrap().trained_on_images.unwrap();
    let own = images(&child, "train").max(images(&first, "train"));
    assert!(trained_on > own && trained_on < 160, "{trained_on} {own}");
    let record = download(
        &server,
        &child.model_version,
        "training-images.bin",
        &server.path("child"),
    )
    .await;
    let bytes = fs_err::metadata(record).unwrap().len();
    assert_eq!(bytes, 24 + 8 * trained_on);

    // Its test images too may be among those of the parent.
    let test = child.test.unwrap();
    let test_again = evaluate(&server, &child.model_version, &faces, DatasetSplit::Test).await;
    let again = test_again.evaluation.clone().unwrap();
    assert_eq!(again.trained_on_images, test.trained_on_images);
    let count = test.trained_on_images.unwrap();
    assert!(count > 0 && count <= test.images, "{count}");
    let warning = format!("{count} of these {} images were trained on", test.images);
    let found = |line: &String| line.starts_with(&warning);
    assert!(
        test_again.warnings.iter().any(found),
        "{:?}",
        test_again.warnings
    );
    let shown = server.run(&["evaluate", "--version", "2"]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains(&warning), "{shown}");

    // The stored weights name their record, so that other files are not needed on this server.
    let alone = server.path("alone.safetensors");
    fs_err::copy(parent.join("model.safetensors"), &alone).unwrap();
    let others = server.faces("others", 40, 9);
    let spec = v1::TrainingSpec {
        init: Some(from_file(&alone)),
        ..spec(&others, Promote::Never)
    };
    let (grandchild, _) = train(&server, spec).await;
    let all = evaluate(
        &server,
        &grandchild.model_version,
        &faces,
        DatasetSplit::All,
    )
    .await;
    let count = all.evaluation.unwrap().trained_on_images;
    assert_eq!(count, Some(images(&first, "train")));
}

#[tokio::test]
async fn versions_of_foreign_weights_are_not_promoted_by_a_comparison() {
    let server = Server::start(&[]);
    let faces = server.faces("faces", 160, 1);
    train(&server, bad_spec(&faces, Promote::IfBetter)).await;
    let directory = server.path("foreign");
    let weights = download(
        &server,
        "models/age/versions/1",
        "model.safetensors",
        &directory,
    )
    .await;
    let state = read_weights(&weights).unwrap();
    let foreign = server.path("foreign.pth");
    let entries = state.iter().map(|(name, tensor)| (name.as_str(), tensor));
    fs_err::write(&foreign, to_pth(entries, None)).unwrap();

    let spec = |promote: Promote| v1::TrainingSpec {
        init: Some(from_file(&foreign)),
        ..spec(&faces, promote)
    };
    let (training, promotion) = train(&server, spec(Promote::IfBetter)).await;
    let expected = "version 2 was not compared with live version 1, because the images that version 2 was trained on are not recorded -> not promoted";
    assert_eq!(promotion.reason, expected);
    assert!(!promotion.promoted);
    assert_eq!(training.test.unwrap().trained_on_images, None);
    let two = version(&server, "2").await.unwrap();
    assert!(!two.training_images_recorded);
    let names: Vec<_> = two.files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(names, ["model.safetensors", "manifest.json"]);
    let report = evaluate(&server, &two.name, &faces, DatasetSplit::Test).await;
    assert_eq!(report.evaluation.unwrap().trained_on_images, None);
    let is_unknown = |line: &String| line.contains("trained on are not recorded");
    assert!(
        report.warnings.iter().any(is_unknown),
        "{:?}",
        report.warnings
    );

    // As the live version it cannot be compared either.
    train(&server, spec(Promote::Always)).await;
    let (_, promotion) = train(&server, bad_spec(&faces, Promote::IfBetter)).await;
    assert!(!promotion.promoted);
    assert!(
        promotion
            .reason
            .contains("the images that version 3 was trained on are not recorded"),
        "{promotion:?}"
    );
}

#[tokio::test]
async fn the_record_of_a_version_outlives_its_training() {
    let mut server = Server::start(&[]);
    let faces = server.faces("faces", 60, 1);
    let (training, _) = train(&server, spec(&faces, Promote::Always)).await;
    let request = v1::DeleteTrainingRequest {
        name: training.name.clone(),
    };
    server.trainings().delete_training(request).await.unwrap();
    // Removes all files that nothing uses.
    server.kill();
    server.start_again();
    let directory = server.path("kept");
    let name = &training.model_version;
    let record = download(&server, name, "training-images.bin", &directory).await;
    let bytes = fs_err::metadata(record).unwrap().len();
    assert_eq!(bytes, 24 + 8 * images(&training, "train"));
    let report = evaluate(&server, name, &faces, DatasetSplit::All).await;
    let evaluation = report.evaluation.unwrap();
    assert_eq!(evaluation.images, files_of(&faces).len() as u64);
    assert_eq!(
        evaluation.trained_on_images,
        Some(images(&training, "train"))
    );
}

#[tokio::test]
async fn same_spec_and_data_give_the_same_losses() {
    let server = Server::start(&[]);
    let faces = server.faces("faces", 60, 1);
    let mut losses = Vec::new();
    for _ in 0..2 {
        let (training, _) = train(&server, small_spec(&faces)).await;
        let epochs = server.events(&training.name).await.into_iter();
        let of_epoch = |event: v1::TrainingEvent| match event.kind {
            Some(Kind::EpochCompleted(metrics)) => Some((metrics.train_loss, metrics.val_loss)),
            _ => None,
        };
        losses.push(epochs.filter_map(of_epoch).collect::<Vec<_>>());
    }
    assert_eq!(losses[0].len(), 2);
    assert_eq!(losses[0], losses[1]);
}
