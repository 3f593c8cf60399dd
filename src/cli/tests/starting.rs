use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::{
    cli::tests::{
        TEN, epochs,
        fake::{Fake, State},
        story::{ended, event},
        visage,
    },
    proto::v1::{ModelVersionCreated, TrainingState, training_event::Kind},
};

#[tokio::test]
async fn train_follows_to_the_end() {
    let mut state = ended(TrainingState::Succeeded);
    let promoted = Kind::ModelVersionCreated(ModelVersionCreated {
        model_version: "models/age/versions/3".to_owned(),
        promoted: true,
        promotion: None,
    });
    state.events.insert(11, event(12, promoted));
    state.events[12].sequence = 13;
    let server = Fake::start(state);
    let run = visage(&server.url(), &["train", "--dataset", "d"]).await;
    assert_eq!(run.code, 0, "{}", run.stderr);
    let lines = run.lines();
    assert_eq!(epochs(&lines), TEN);
    assert_eq!(
        lines[10..],
        [
            "trainings/t succeeded: all epochs are done",
            "Model version: models/age/versions/3"
        ]
    );
    let hint = "It is live. Try it with `visage predict FILE.jpg`.";
    assert!(run.stderr.contains(hint), "{}", run.stderr);
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
    assert_eq!((run.code, run.stdout.as_str()), (0, "trainings/t\n"));
    let started = server.state.started.lock().unwrap();
    assert_eq!(started.len(), 3);
    assert!(
        started
            .iter()
            .all(|request| request.request_id == started[0].request_id)
    );
}

#[tokio::test]
async fn only_success_ends_with_0() {
    for (state, code) in [
        (TrainingState::Succeeded, 0),
        (TrainingState::Failed, 1),
        (TrainingState::Cancelled, 1),
    ] {
        let server = Fake::start(ended(state));
        let train = visage(&server.url(), &["train", "--dataset", "d"]).await;
        let watch = visage(&server.url(), &["watch", "t", "--json"]).await;
        assert_eq!((train.code, watch.code), (code, code), "{state:?}");
    }
}

/// A server whose training `s-1` has ended.
fn sweep_server(state: TrainingState) -> State {
    let mut state = ended(state);
    state.training.name = "trainings/s-1".to_owned();
    state
}

const SWEEP: [&str; 5] = ["sweep", "--dataset", "/faces", "--grid", "seed=1"];

#[tokio::test]
async fn a_sweep_waits_for_a_full_queue() {
    let state = sweep_server(TrainingState::Succeeded);
    let full = Status::with_error_details(
        Code::ResourceExhausted,
        "1 trainings are queued",
        ErrorDetails::with_retry_info(Some(Duration::from_millis(1))),
    );
    let refusals = [full.clone(), full.clone(), full];
    state.refusals.lock().unwrap().extend(refusals);
    let server = Fake::start(state);
    let run = visage(&server.url(), &[&SWEEP[..], &["--id", "s"]].concat()).await;
    assert_eq!(run.code, 0, "{}", run.stderr);
    let note = "1 trainings are queued; waiting for the queue.";
    assert_eq!(run.stderr.matches(note).count(), 1, "{}", run.stderr);
    assert_eq!(server.state.started.lock().unwrap().len(), 4);
    let rows: Vec<&str> = run.lines()[1].split_whitespace().collect();
    assert_eq!(rows, ["s-1", "1", "-", "-", "-", "-", "-", "SUCCEEDED"]);
}

#[tokio::test]
async fn a_resumed_sweep_starts_no_existing_training_and_refuses_another_plan() {
    let mut state = sweep_server(TrainingState::Succeeded);
    state.training.labels = [("sweep".to_owned(), "s".to_owned())].into();
    state.training.spec.get_or_insert_default().seed = Some(1);
    let server = Fake::start(state);
    let run = visage(&server.url(), &[&SWEEP[..], &["--resume", "s"]].concat()).await;
    assert_eq!(run.code, 0, "{}", run.stderr);
    let other = [
        "sweep",
        "--dataset",
        "/faces",
        "--grid",
        "seed=2",
        "--resume",
        "s",
    ];
    let run = visage(&server.url(), &other).await;
    assert_eq!(run.code, 2);
    assert!(
        run.stderr
            .contains("trainings/s-1 exists but is not this sweep's run with seed=2"),
        "{}",
        run.stderr
    );
    assert!(server.state.started.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_failed_run_fails_the_sweep() {
    let server = Fake::start(sweep_server(TrainingState::Failed));
    let run = visage(&server.url(), &[&SWEEP[..], &["--id", "s"]].concat()).await;
    assert_eq!(run.code, 1, "{}", run.stderr);
    assert!(run.lines()[1].ends_with("FAILED"), "{}", run.stdout);
}
