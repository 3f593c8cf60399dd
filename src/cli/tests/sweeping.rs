use clap::Parser as _;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::proto::v1::{EpochMetrics, Promote, TrainingState};

use super::{
    Cli,
    fake::{Fake, State},
    story::ended,
    visage,
};

const SWEEP: [&str; 7] = [
    "sweep",
    "--dataset",
    "/faces",
    "--grid",
    "optimizer.learning_rate=1e-4,3e-4",
    "--id",
    "s",
];

/// A server whose trainings have all ended well.
fn server() -> State {
    let mut state = ended(TrainingState::Succeeded);
    state.training.name = "trainings/s-1".to_owned();
    state.training.best = Some(EpochMetrics {
        epoch: 7,
        val_loss: 84.25,
        val_rmse: 9.18,
        val_mae: 7.125,
        ..EpochMetrics::default()
    });
    state
}

#[tokio::test]
async fn a_sweep_starts_its_runs_one_for_each_value_and_prints_a_table() {
    let server = Fake::start(server());
    let one_value = [
        "sweep",
        "--dataset",
        "/faces",
        "--grid",
        "optimizer.learning_rate=3e-4",
        "--set",
        "max_epochs=3",
        "--id",
        "s",
    ];
    let run = visage(&server.url(), &one_value).await;
    assert_eq!(run.code, 0, "{}", run.stderr);
    let lines = run.lines();
    let words =
        |line: &str| -> Vec<String> { line.split_whitespace().map(str::to_owned).collect() };
    assert_eq!(lines.len(), 2);
    assert_eq!(
        words(lines[0])[..2],
        ["TRAINING", "optimizer.learning_rate"]
    );
    assert_eq!(
        words(lines[1])[..6],
        ["s-1", "3e-4", "7", "84.2500", "9.18", "7.12"]
    );
    assert!(lines[1].ends_with("SUCCEEDED"), "{}", lines[1]);
    assert!(run.stderr.contains("--resume s"), "{}", run.stderr);

    let started = server.state.started.lock().unwrap();
    assert_eq!(started.len(), 1);
    assert_eq!(started[0].training_id, "s-1");
    assert_eq!(started[0].display_name, "optimizer.learning_rate=3e-4");
    assert_eq!(started[0].labels["sweep"], "s");
    let spec = started[0].spec.clone().unwrap();
    assert_eq!(spec.dataset.clone().unwrap().path, "/faces");
    assert_eq!(spec.promote(), Promote::Never);
    assert_eq!(spec.max_epochs, Some(3));
    assert_eq!(spec.optimizer.unwrap().learning_rate, Some(3e-4));
}

#[tokio::test]
async fn a_full_queue_is_waited_for() {
    let state = server();
    let full = Status::with_error_details(
        Code::ResourceExhausted,
        "1 trainings wait already",
        ErrorDetails::with_retry_info(Some(std::time::Duration::from_millis(1))),
    );
    state
        .refusals
        .lock()
        .unwrap()
        .extend([full.clone(), full.clone(), full]);
    let server = Fake::start(state);
    let run = visage(
        &server.url(),
        &[
            "sweep",
            "--dataset",
            "/faces",
            "--grid",
            "seed=1",
            "--id",
            "s",
            "--json",
        ],
    )
    .await;
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(
        run.stderr
            .contains("1 trainings wait already; waiting for room."),
        "{}",
        run.stderr
    );
    assert_eq!(server.state.started.lock().unwrap().len(), 4);
    let object = &run.objects()[0];
    assert_eq!(
        (&object["sweep"], &object["fields"]["seed"]),
        (&"s".into(), &1.into())
    );
    assert_eq!(object["training"]["best"]["val_loss"], 84.25);
}

#[tokio::test]
async fn a_resumed_sweep_starts_nothing_that_exists_and_refuses_other_settings() {
    let mut state = server();
    state.training.labels = [("sweep".to_owned(), "s".to_owned())].into();
    let spec = state.training.spec.get_or_insert_default();
    spec.seed = Some(1);
    let server = Fake::start(state);
    let resume = |grid: &'static str| {
        [
            "sweep",
            "--dataset",
            "/faces",
            "--grid",
            grid,
            "--resume",
            "s",
        ]
    };
    let run = visage(&server.url(), &resume("seed=1")).await;
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(server.state.started.lock().unwrap().is_empty());
    let run = visage(&server.url(), &resume("seed=2")).await;
    assert_eq!(run.code, 2);
    assert!(
        run.stderr
            .contains("trainings/s-1 exists and is not this sweep's run with seed=2"),
        "{}",
        run.stderr
    );
}

#[tokio::test]
async fn a_failed_run_fails_the_sweep() {
    let mut state = ended(TrainingState::Failed);
    state.training.name = "trainings/s-1".to_owned();
    state.training.best = None;
    let server = Fake::start(state);
    let run = visage(
        &server.url(),
        &[
            "sweep",
            "--dataset",
            "/faces",
            "--grid",
            "seed=1",
            "--id",
            "s",
        ],
    )
    .await;
    assert_eq!(run.code, 1, "{}", run.stderr);
    assert!(run.lines()[1].ends_with("FAILED"), "{}", run.stdout);
}

#[tokio::test]
async fn what_cannot_be_swept_is_a_usage_error() {
    let refused = |arguments: &[&str]| {
        let error = Cli::try_parse_from([&["visage"], arguments].concat()).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        error.to_string()
    };
    let grid = |axis: &'static str| ["sweep", "--dataset", "/faces", "--grid", axis];
    assert!(
        refused(&grid("lerning_rate=1")).contains("did you mean `optimizer.learning_rate`?"),
        "{}",
        refused(&grid("lerning_rate=1"))
    );
    assert!(
        refused(&grid("batch_size=16,many")).contains("takes an integer of 0 or more, not `many`")
    );
    assert!(
        refused(&["train", "--dataset", "/faces", "--set", "batch=1"]).contains("`batch_size`")
    );
    let server = Fake::start(server());
    for (arguments, reason) in [
        (
            &["--set", "optimizer.learning_rate=1"][..],
            "is given twice",
        ),
        (
            &["--grid", "seed=1,2,3", "--random", "1001"],
            "more than 1000 runs",
        ),
    ] {
        let run = visage(&server.url(), &[&SWEEP, arguments].concat()).await;
        assert_eq!(run.code, 2);
        assert!(run.stderr.contains(reason), "{}", run.stderr);
    }
    let run = visage(&server.url(), &["sweep", "--dataset", "/faces"]).await;
    assert!(run.stderr.contains("nothing varies"), "{}", run.stderr);
    assert!(server.state.started.lock().unwrap().is_empty());
}

#[tokio::test]
async fn train_sets_any_field_by_its_name() {
    let server = Fake::start(ended(TrainingState::Succeeded));
    let run = visage(
        &server.url(),
        &[
            "train",
            "--dataset",
            "/faces",
            "--lr",
            "1e-3",
            "--set",
            "optimizer.learning_rate=2e-3",
            "--set",
            "optimizer.beta1=0.5",
        ],
    )
    .await;
    assert_eq!(run.code, 0, "{}", run.stderr);
    let started = server.state.started.lock().unwrap();
    let optimizer = started[0].spec.clone().unwrap().optimizer.unwrap();
    assert_eq!(
        (optimizer.learning_rate, optimizer.beta1),
        (Some(2e-3), Some(0.5))
    );
}
