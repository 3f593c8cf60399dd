use std::path::Path;

use tonic::Status;

use crate::proto::v1::{
    InitKind, ModelVersionCreated, Recipe, TrainingState, training_event::Kind,
};

use super::{
    TEN, epochs,
    fake::Fake,
    story::{ended, event},
    visage,
};

#[tokio::test]
async fn train_follows_to_the_end() {
    let mut state = ended(TrainingState::Succeeded);
    let promoted = Kind::ModelVersionCreated(ModelVersionCreated {
        model_version: "models/age/versions/3".to_owned(),
        promoted: true,
    });
    state.events.insert(11, event(12, promoted));
    state.events[12].sequence = 13;
    let server = Fake::start(state);
    let directory = tempfile::tempdir().unwrap();
    let faces = directory.path().canonicalize().unwrap();
    let dataset = format!("{}/./", faces.display());
    let arguments = [
        "train",
        "--dataset",
        &dataset,
        "--init",
        "random",
        "--epochs",
        "10",
        "--trainable",
        "layer4,fc",
    ];
    let run = visage(
        &server.url(),
        &[&arguments[..], &["--label", "a=b=c"]].concat(),
    )
    .await;
    assert_eq!(run.code, 0, "{}", run.stderr);
    let lines = run.lines();
    assert_eq!(
        lines[0],
        "Epoch 1/10, Training Loss: 580.8863, Validation Loss: 184.5743, RMSE: 13.59, MAE: 10.20, 24.1 images/s, ETA 2m10s"
    );
    assert_eq!(epochs(&lines), TEN);
    assert_eq!(
        lines[10..],
        [
            "trainings/t succeeded: all epochs are done",
            "Model version: models/age/versions/3"
        ]
    );
    assert!(
        run.stderr
            .contains("It is live. Try it with `visage predict FILE.jpg`."),
        "{}",
        run.stderr
    );

    let started = server.state.started.lock().unwrap();
    let spec = started[0].spec.as_ref().unwrap();
    assert_eq!(Path::new(&spec.dataset.as_ref().unwrap().path), faces);
    assert_eq!(spec.init.as_ref().unwrap().kind(), InitKind::Random);
    assert_eq!(spec.max_epochs, Some(10));
    assert_eq!(spec.batch_size, None);
    assert_eq!(spec.trainable, ["layer4", "fc"]);
    assert_eq!(started[0].labels["a"], "b=c");
}

#[tokio::test]
async fn paths_that_are_not_here_are_still_made_absolute() {
    let server = Fake::start(ended(TrainingState::Succeeded));
    let arguments = [
        "train",
        "--dataset",
        "absent/./faces",
        "--init",
        "w.pth",
        "--init-key",
        "model_ema",
        "--detach",
    ];
    let run = visage(&server.url(), &arguments).await;
    assert_eq!((run.code, run.stdout.as_str()), (0, "trainings/t\n"));
    let started = server.state.started.lock().unwrap();
    let spec = started[0].spec.as_ref().unwrap();
    let here = std::env::current_dir().unwrap();
    assert_eq!(
        Path::new(&spec.dataset.as_ref().unwrap().path),
        here.join("absent/faces")
    );
    let init = spec.init.as_ref().unwrap();
    assert_eq!(
        (init.kind(), Path::new(&init.path)),
        (InitKind::Path, here.join("w.pth").as_path())
    );
    assert_eq!(init.key, "model_ema");
}

#[tokio::test]
async fn a_recipe_is_sent_with_what_is_set_beside_it() {
    let server = Fake::start(ended(TrainingState::Succeeded));
    let arguments = ["train", "--dataset", "d", "--recipe", "best", "--detach"];
    let others = ["--init", "starter", "--set", "augmentation.erasing=0"];
    let run = visage(&server.url(), &[&arguments[..], &others].concat()).await;
    assert_eq!(run.code, 0, "{}", run.stderr);
    let started = server.state.started.lock().unwrap();
    let spec = started[0].spec.as_ref().unwrap();
    assert_eq!(spec.recipe(), Recipe::Best);
    let init = spec.init.as_ref().unwrap();
    assert_eq!((init.kind(), init.path.as_str()), (InitKind::Starter, ""));
    assert_eq!(spec.augmentation.unwrap().erasing, Some(0.0));
    assert_eq!(spec.max_epochs, None);
}

#[tokio::test]
async fn start_is_repeated_with_the_same_request_id() {
    let state = ended(TrainingState::Succeeded);
    let refusals = [
        Status::unavailable("starting"),
        Status::unavailable("starting"),
    ];
    state.refusals.lock().unwrap().extend(refusals);
    let server = Fake::start(state);
    let run = visage(&server.url(), &["train", "--dataset", "d", "--detach"]).await;
    assert_eq!(run.code, 0, "{}", run.stderr);
    let started = server.state.started.lock().unwrap();
    assert_eq!(started.len(), 3);
    assert!(uuid::Uuid::parse_str(&started[0].request_id).is_ok());
    assert!(
        started
            .iter()
            .all(|request| request.request_id == started[0].request_id)
    );
}

#[tokio::test]
async fn validate_only_prints_what_it_would_need() {
    let server = Fake::start(ended(TrainingState::Succeeded));
    let run = visage(
        &server.url(),
        &["train", "--dataset", "d", "--validate-only"],
    )
    .await;
    assert_eq!(run.code, 0);
    assert!(
        run.stdout.contains("1.5 GiB of memory") && run.stdout.contains("25 steps"),
        "{}",
        run.stdout
    );
    assert!(server.state.opened.lock().unwrap().is_empty());
}

#[tokio::test]
async fn only_success_ends_with_0() {
    for (state, code) in [
        (TrainingState::Succeeded, 0),
        (TrainingState::Failed, 1),
        (TrainingState::Cancelled, 1),
    ] {
        let server = Fake::start(ended(state));
        assert_eq!(
            visage(&server.url(), &["train", "--dataset", "d"])
                .await
                .code,
            code,
            "{state:?}"
        );
        assert_eq!(
            visage(&server.url(), &["watch", "t", "--json"]).await.code,
            code,
            "{state:?}"
        );
    }
}
