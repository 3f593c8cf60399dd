use std::{
    future::{pending, ready},
    sync::Arc,
    time::Duration,
};

use tonic::Status;

use crate::{
    cli::{
        client::{Client, Credentials},
        commands::follow_view::follow,
        context::Outcome,
        tests::{
            TEN, context, epochs,
            fake::{Ending, Fake, State},
            fast_retry,
            story::{ended, epoch, event, state_changed},
            visage, visage_with,
        },
    },
    proto::v1::{MetricsRewound, StreamEpochMetricsRequest, TrainingState, training_event::Kind},
};

/// A request for the stream of `trainings/t`.
fn stream(after_sequence: u64) -> StreamEpochMetricsRequest {
    StreamEpochMetricsRequest {
        name: "trainings/t".to_owned(),
        after_sequence,
        ..StreamEpochMetricsRequest::default()
    }
}

#[tokio::test]
async fn a_broken_stream_loses_and_repeats_no_line() {
    let state = ended(TrainingState::Succeeded);
    state.endings.lock().unwrap().extend([
        Ending::Fails(4, Status::unavailable("the server shuts down")),
        Ending::Fails(0, Status::unavailable("still starting")),
        Ending::Closes(2),
        Ending::Repeats,
    ]);
    let mut running = state.training.clone();
    running.set_state(TrainingState::Running);
    // The training must not have ended, or the third stream's end with OK would be final.
    let state = State {
        training: running,
        ..state
    };
    let server = Fake::start(state);
    let run = visage(&server.url(), &["watch", "t"]).await;
    assert_eq!(epochs(&run.lines()), TEN, "{}", run.stderr);
    let opened = server.state.opened.lock().unwrap();
    let cursors: Vec<u64> = opened
        .iter()
        .map(|request| request.after_sequence)
        .collect();
    assert_eq!(cursors, [0, 4, 4, 6]);
    assert_eq!(
        run.stderr.matches("Connection lost").count(),
        2,
        "{}",
        run.stderr
    );
    assert_eq!(
        run.stderr.matches("Connected again").count(),
        2,
        "{}",
        run.stderr
    );
}

#[tokio::test]
async fn a_killed_and_restarted_server_loses_and_repeats_no_line() {
    let state = ended(TrainingState::Succeeded);
    state.endings.lock().unwrap().push_back(Ending::Hangs(5));
    let server = Fake::start(state);
    let (mut context, stdout, _) = context(&server.url(), false, fast_retry());
    let client = Client::connect(&server.url(), Credentials::default())
        .await
        .unwrap();
    // Kept open, so that no other process takes the port meanwhile.
    let (listener, state) = (
        server.listener.try_clone().unwrap(),
        Arc::clone(&server.state),
    );
    let restart = async {
        while !stdout.text().contains("Epoch 4/10") {
            tokio::task::yield_now().await;
        }
        drop(server);
        Fake::on(listener, state)
    };
    let watched = follow(&mut context, client, stream(0), pending());
    let (outcome, server) = tokio::join!(watched, restart);
    assert_eq!(outcome.unwrap(), Outcome::Done);
    assert_eq!(epochs(&stdout.text().lines().collect::<Vec<_>>()), TEN);
    assert_eq!(
        server
            .state
            .opened
            .lock()
            .unwrap()
            .last()
            .unwrap()
            .after_sequence,
        5
    );
}

#[tokio::test]
async fn a_silent_stream_is_opened_again() {
    let state = ended(TrainingState::Succeeded);
    state.endings.lock().unwrap().push_back(Ending::Hangs(3));
    let server = Fake::start(state);
    let mut impatient = fast_retry();
    impatient.heartbeat_timeout = Duration::from_millis(300);
    let run = visage_with(&server.url(), impatient, &["watch", "t"]).await;
    assert_eq!(epochs(&run.lines()), TEN);
    let opened = server.state.opened.lock().unwrap();
    let heartbeat = opened[0].heartbeat_interval.unwrap();
    assert_eq!((heartbeat.seconds, heartbeat.nanos), (0, 100_000_000));
}

#[tokio::test]
async fn a_lost_server_ends_with_the_command_to_resume() {
    let state = ended(TrainingState::Succeeded);
    state.endings.lock().unwrap().push_back(Ending::Hangs(5));
    let server = Fake::start(state);
    let url = server.url();
    let mut impatient = fast_retry();
    impatient.stream_timeout = Duration::from_millis(100);
    let (mut context, stdout, _) = context(&url, false, impatient);
    let client = Client::connect(&url, Credentials::default()).await.unwrap();
    let kill = async {
        while !stdout.text().contains("Epoch 4/10") {
            tokio::task::yield_now().await;
        }
        drop(server);
    };
    let watched = follow(&mut context, client, stream(0), pending());
    let (outcome, ()) = tokio::join!(watched, kill);
    let error = outcome.unwrap_err();
    assert_eq!(error.exit_code(), 3);
    assert!(
        error
            .to_string()
            .ends_with("`visage watch trainings/t --after 5`"),
        "{error}"
    );
}

#[tokio::test]
async fn a_refused_cursor_is_not_retried() {
    let state = ended(TrainingState::Succeeded);
    let refusal = Status::out_of_range("the cursor 99 is past the head, 12");
    state
        .endings
        .lock()
        .unwrap()
        .push_back(Ending::Fails(0, refusal));
    let server = Fake::start(state);
    let run = visage(&server.url(), &["watch", "t", "--after", "99"]).await;
    assert_eq!(
        (run.code, run.stderr.as_str()),
        (1, "error: the cursor 99 is past the head, 12\n")
    );
    assert_eq!(server.state.opened.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_cursor_at_the_end_of_an_ended_training_ends_at_once() {
    let server = Fake::start(ended(TrainingState::Succeeded));
    let run = visage(&server.url(), &["watch", "trainings/t", "--after", "12"]).await;
    assert_eq!((run.code, epochs(&run.lines()).len()), (0, 0));
}

#[tokio::test]
async fn a_rewind_is_printed_before_epochs_repeat() {
    let mut state = ended(TrainingState::Succeeded);
    state.events = vec![
        event(1, epoch(1)),
        event(2, epoch(2)),
        event(3, Kind::MetricsRewound(MetricsRewound { from_epoch: 2 })),
        event(4, epoch(2)),
        event(5, state_changed(TrainingState::Succeeded)),
    ];
    let server = Fake::start(state);
    let run = visage(&server.url(), &["watch", "t"]).await;
    let lines = run.lines();
    assert_eq!(epochs(&lines), [1, 2, 2]);
    assert!(
        lines[2].contains("resumes from its last full checkpoint, in epoch 2"),
        "{}",
        lines[2]
    );
}

#[tokio::test]
async fn json_has_the_field_names_of_the_proto_and_ends_with_the_training() {
    let server = Fake::start(ended(TrainingState::Succeeded));
    let run = visage(&server.url(), &["train", "--dataset", "d", "--json"]).await;
    let objects = run.objects();
    assert_eq!(objects.len(), 13);
    assert_eq!(
        objects[0]["state_changed"]["state"],
        "TRAINING_STATE_RUNNING"
    );
    let first = &objects[1];
    assert_eq!(
        (&first["training"], &first["sequence"]),
        (&"trainings/t".into(), &2.into())
    );
    let metrics = &first["epoch_completed"];
    assert_eq!(metrics["train_loss"], 580.8863);
    assert_eq!(metrics["eta"], "130s");
    // Zero is printed, unset fields are not.
    assert_eq!(metrics["skipped_images"], 0);
    assert!(
        metrics.get("seconds").is_none() && first.get("heartbeat").is_none(),
        "{first}"
    );
    let training = &objects[12];
    assert_eq!(training["name"], "trainings/t");
    assert_eq!(training["state"], "TRAINING_STATE_SUCCEEDED");
    assert_eq!(training["last_sequence"], 12);
    assert_eq!(training["model_version"], "models/age/versions/3");
}

#[tokio::test]
async fn all_trainings_are_followed_by_token_and_lines_are_labelled() {
    let state = ended(TrainingState::Succeeded);
    let endings = [
        Ending::Fails(3, Status::unavailable("gone")),
        Ending::Closes(usize::MAX),
    ];
    state.endings.lock().unwrap().extend(endings);
    let server = Fake::start(state);
    let run = visage(
        &server.url(),
        &["watch", "-", "--resume-token", "token-1", "--no-follow"],
    )
    .await;
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(
        run.lines()[0].starts_with("trainings/t: Epoch 1/10, "),
        "{}",
        run.stdout
    );
    assert_eq!(run.stdout.matches("Epoch").count(), 10);
    let opened = server.state.opened.lock().unwrap();
    let tokens: Vec<&str> = opened
        .iter()
        .map(|request| request.resume_token.as_str())
        .collect();
    assert_eq!(tokens, ["token-1", "token-4"]);
    assert_eq!(
        (opened[1].follow, opened[1].after_sequence),
        (Some(false), 0)
    );
}

#[tokio::test]
async fn ctrl_c_leaves_the_training_running_and_prints_the_next_commands() {
    let server = Fake::start(ended(TrainingState::Running));
    let (mut context, _, stderr) = context(&server.url(), false, fast_retry());
    let client = Client::connect(&server.url(), Credentials::default())
        .await
        .unwrap();
    let outcome = follow(&mut context, client, stream(12), ready(()))
        .await
        .unwrap();
    assert_eq!(outcome.exit_code(), 130);
    let message = stderr.text();
    assert!(
        message.contains("the training continues")
            && message.contains("visage watch trainings/t --after 12"),
        "{message}"
    );
    assert!(message.contains("visage trainings stop t"), "{message}");
}

#[tokio::test]
async fn an_ended_training_is_watched_once() {
    let server = Fake::start(ended(TrainingState::Succeeded));
    let plain = visage(&server.url(), &["trainings", "get", "t"]).await;
    let get = ["trainings", "get", "t", "--watch=100ms"];
    let watched = visage(&server.url(), &get).await;
    assert_eq!(watched.code, 0, "{}", watched.stderr);
    assert_eq!(watched.stdout, plain.stdout);
    let watched = visage(&server.url(), &[&get[..], &["--json"]].concat()).await;
    assert_eq!(watched.objects().len(), 1);
}
