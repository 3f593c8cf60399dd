//! Pausing, resuming and changing trainings, and ends that the spec defines.

use tonic::{Code, Status};
use tonic_types::StatusExt;
use visage::proto::v1::{self, StopReason, TrainingState, training_event::Kind};

use crate::support::{Server, code, is_final, long_spec, reason, small_spec};

async fn pause(server: &Server, name: &str) -> Result<v1::Training, Status> {
    let name = name.to_owned();
    let request = v1::PauseTrainingRequest { name };
    let response = server.trainings().pause_training(request).await?;
    Ok(response.into_inner().training.unwrap())
}

async fn resume(server: &Server, name: &str) -> Result<v1::Training, Status> {
    let name = name.to_owned();
    let request = v1::ResumeTrainingRequest { name };
    let response = server.trainings().resume_training(request).await?;
    Ok(response.into_inner().training.unwrap())
}

async fn stop(server: &Server, name: &str) -> v1::Training {
    let name = name.to_owned();
    let request = v1::StopTrainingRequest { name };
    let response = server.trainings().stop_training(request).await.unwrap();
    response.into_inner().training.unwrap()
}

async fn is_paused(server: &Server, name: &str) -> v1::Training {
    let is_so = |training: &v1::Training| {
        is_final(training.state()) || training.state() == TrainingState::Paused
    };
    let training = server.training_when(name, "paused", is_so).await;
    assert_eq!(training.state(), TrainingState::Paused, "{training:#?}");
    training
}

async fn past_first_epoch(server: &Server, name: &str) {
    server
        .training_when(name, "past its first epoch", |training| {
            training.last.is_some()
        })
        .await;
}

/// The fields of a refused request.
fn fields(refused: &Status) -> Vec<String> {
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    let violations = refused.get_details_bad_request().unwrap().field_violations;
    violations.into_iter().map(|found| found.field).collect()
}

#[tokio::test]
async fn paused_training_lets_the_next_one_run_and_ends_with_what_it_has() {
    let server = Server::start(&[]);
    let faces = server.faces("faces", 60, 1);
    let name = server.queue(long_spec(&faces)).await;
    past_first_epoch(&server, &name).await;
    let pid = server.worker_pid(&name);
    pause(&server, &name).await.unwrap();
    let paused = is_paused(&server, &name).await;
    assert!(!crate::support::is_alive(pid), "it still holds the device");
    assert_eq!(paused.stop_reason(), StopReason::Unspecified);
    // A second call is a no-op, and the device is free.
    assert_eq!(
        pause(&server, &name).await.unwrap().state(),
        TrainingState::Paused
    );
    let other = server.ended(&server.queue(small_spec(&faces)).await).await;
    assert_eq!(other.state(), TrainingState::Succeeded, "{other:#?}");
    let stopped = stop(&server, &name).await;
    assert_eq!(stopped.state(), TrainingState::Succeeded, "{stopped:#?}");
    assert_eq!(stopped.stop_reason(), StopReason::UserStop);
    assert_eq!(stopped.model_version, "models/age/versions/2");
    let refused = resume(&server, &name).await;
    assert_eq!(code(&refused), Code::FailedPrecondition);
    let left = fs_err::read_dir(server.path("data").join("work"));
    assert_eq!(left.unwrap().count(), 0, "its files are left");
}

#[tokio::test]
async fn queued_training_is_paused_immediately_and_keeps_its_progress() {
    let server = Server::start(&[]);
    let faces = server.faces("faces", 60, 1);
    let running = server.queue(long_spec(&faces)).await;
    server.in_epoch(&running).await;
    let (first, second) = (
        server.queue(small_spec(&faces)).await,
        server.queue(small_spec(&faces)).await,
    );
    let paused = pause(&server, &first).await.unwrap();
    assert_eq!(paused.state(), TrainingState::Paused);
    assert_eq!(server.training(&second).await.queue_position, 1);
    let queued = resume(&server, &first).await.unwrap();
    assert_eq!(
        (queued.state(), queued.queue_position),
        (TrainingState::Queued, 1)
    );
    pause(&server, &first).await.unwrap();
    // Without a checkpoint nothing is kept.
    assert_eq!(
        stop(&server, &first).await.state(),
        TrainingState::Cancelled
    );
    stop(&server, &running).await;
    let refused = pause(&server, &running).await;
    assert_eq!(code(&refused), Code::FailedPrecondition);
    let ended = server.ended(&second).await;
    assert_eq!(ended.state(), TrainingState::Succeeded, "{ended:#?}");
}

#[tokio::test]
async fn running_training_applies_changes_from_its_next_epoch() {
    let server = Server::start(&[]);
    let spec = v1::TrainingSpec {
        max_epochs: Some(10_000),
        ..small_spec(&server.faces("faces", 60, 1))
    };
    let name = server.queue(spec).await;
    past_first_epoch(&server, &name).await;
    let change = |change: v1::UpdateTrainingRequest| {
        let mut client = server.trainings();
        let name = name.clone();
        async move {
            let request = v1::UpdateTrainingRequest { name, ..change };
            let response = client.update_training(request).await?;
            Ok::<_, Status>(response.into_inner().training.unwrap())
        }
    };
    let refused = change(v1::UpdateTrainingRequest::default()).await;
    assert_eq!(fields(&refused.unwrap_err()), ["max_epochs"]);
    let wrong = v1::UpdateTrainingRequest {
        max_epochs: Some(0),
        learning_rate: Some(-1.0),
        ..Default::default()
    };
    let refused = change(wrong).await.unwrap_err();
    assert_eq!(fields(&refused), ["max_epochs", "learning_rate"]);
    let slower = v1::UpdateTrainingRequest {
        learning_rate: Some(5e-5),
        patience: Some(9_999),
        ..Default::default()
    };
    let changed = change(slower).await.unwrap().resolved_spec.unwrap();
    assert_eq!(changed.optimizer.unwrap().learning_rate, Some(5e-5));
    let since = server.training(&name).await.last.unwrap().epoch;
    let shorter = v1::UpdateTrainingRequest {
        max_epochs: Some(since + 15),
        ..Default::default()
    };
    change(shorter).await.unwrap();
    let training = server.ended(&name).await;
    assert_eq!(training.state(), TrainingState::Succeeded, "{training:#?}");
    assert_eq!(training.stop_reason(), StopReason::MaxEpochs);
    assert_eq!(training.last.unwrap().epoch, since + 15);
    let (mut rates, mut all_changes) = (Vec::new(), Vec::new());
    for event in server.events(&name).await {
        match event.kind {
            Some(Kind::EpochCompleted(metrics)) => rates.push(metrics.learning_rate),
            Some(Kind::SpecChanged(changed)) => {
                assert_eq!(changed.reason(), v1::SpecChangeReason::Requested);
                all_changes.extend(changed.changes);
            }
            _ => {}
        }
    }
    assert_eq!((rates[0], rates[rates.len() - 1]), (1e-4, 5e-5));
    assert!(rates.is_sorted_by(|a, b| a >= b), "{rates:?}");
    let all_changes: Vec<_> = all_changes
        .iter()
        .map(|one| (one.field.as_str(), one.before.as_str(), one.after.as_str()))
        .collect();
    let epochs = (since + 15).to_string();
    assert_eq!(
        all_changes,
        [
            ("early_stopping.patience", "0", "9999"),
            ("optimizer.learning_rate", "0.0001", "0.00005"),
            ("max_epochs", "10000", epochs.as_str()),
        ]
    );
    let late = v1::UpdateTrainingRequest {
        max_epochs: Some(10),
        ..Default::default()
    };
    assert_eq!(code(&change(late).await), Code::FailedPrecondition);
}

#[tokio::test]
async fn preparing_training_applies_changes_from_its_first_epoch() {
    let server = Server::start(&[]);
    let name = server
        .queue(small_spec(&server.faces("faces", 200, 1)))
        .await;
    // The process starts with the spec before the change.
    let has_begun = |training: &v1::Training| training.state() != TrainingState::Queued;
    server.training_when(&name, "preparing", has_begun).await;
    let slower = v1::UpdateTrainingRequest {
        name: name.clone(),
        learning_rate: Some(5e-5),
        ..Default::default()
    };
    let changed = server.trainings().update_training(slower).await.unwrap();
    let changed = changed.into_inner().training.unwrap();
    assert_eq!(changed.state(), TrainingState::Preparing);
    let training = server.ended(&name).await;
    assert_eq!(training.state(), TrainingState::Succeeded, "{training:#?}");
    let rates = server.events(&name).await.into_iter();
    let rates = rates.filter_map(|event| match event.kind {
        Some(Kind::EpochCompleted(metrics)) => Some(metrics.learning_rate),
        _ => None,
    });
    assert_eq!(rates.collect::<Vec<_>>(), [5e-5, 5e-5]);
}

#[tokio::test]
async fn target_that_is_reached_ends_the_training() {
    let server = Server::start(&[]);
    let spec = v1::TrainingSpec {
        max_epochs: Some(50),
        target: Some(v1::TargetSpec {
            metric: v1::Metric::ValRmse.into(),
            value: 1_000.0,
        }),
        ..small_spec(&server.faces("faces", 40, 1))
    };
    let training = server.ended(&server.queue(spec).await).await;
    assert_eq!(training.state(), TrainingState::Succeeded, "{training:#?}");
    assert_eq!(training.stop_reason(), StopReason::TargetReached);
    assert_eq!(training.last.unwrap().epoch, 1);
}

#[tokio::test]
async fn training_that_exceeds_the_memory_is_refused_with_the_estimate() {
    let server = Server::start(&[]);
    let request = v1::StartTrainingRequest {
        spec: Some(v1::TrainingSpec {
            batch_size: Some(4_096),
            input_size: Some(1_024),
            ..small_spec(&server.faces("faces", 4, 1))
        }),
        ..Default::default()
    };
    let refused = server
        .trainings()
        .start_training(request)
        .await
        .unwrap_err();
    assert_eq!(fields(&refused), ["spec.batch_size"]);
    let message = refused.message();
    assert!(message.contains("MB of memory"), "{message}");
    assert_eq!(reason(&refused), "INVALID_FIELDS");
}

#[tokio::test]
async fn training_without_its_best_checkpoint_starts_over_and_does_not_block_the_queue() {
    let server = Server::start(&[]);
    let faces = server.faces("faces", 60, 1);
    let spec = v1::TrainingSpec {
        // Epochs that take seconds, so that a full checkpoint is written.
        max_epochs: Some(3),
        ..long_spec(&faces)
    };
    let name = server.queue(spec).await;
    past_first_epoch(&server, &name).await;
    pause(&server, &name).await.unwrap();
    is_paused(&server, &name).await;
    let stored = server.path("data").join("artifacts").join("sha256");
    assert!(stored.exists(), "{} is gone", stored.display());
    fs_err::remove_dir_all(stored).unwrap();
    resume(&server, &name).await.unwrap();
    let training = server.ended(&name).await;
    assert_eq!(training.state(), TrainingState::Succeeded, "{training:#?}");
    assert_eq!(training.last.unwrap().epoch, 3);
    let rewound = server
        .events(&name)
        .await
        .into_iter()
        .filter_map(|event| match event.kind {
            Some(Kind::MetricsRewound(rewound)) => Some(rewound.from_epoch),
            _ => None,
        });
    assert_eq!(rewound.collect::<Vec<_>>(), [1]);
    server.predict().await.unwrap();
}

/// Stops trainings repeatedly, because the moment between the end of a process and its record
/// cannot be hit deliberately. Every one must end.
#[tokio::test]
async fn stop_while_a_process_ends_ends_the_training() {
    let server = Server::start(&[]);
    let spec = v1::TrainingSpec {
        max_epochs: Some(10_000),
        ..small_spec(&server.faces("faces", 40, 1))
    };
    for delay in 0..6 {
        let name = server.queue(spec.clone()).await;
        past_first_epoch(&server, &name).await;
        crate::support::signal(server.worker_pid(&name), "KILL");
        tokio::time::sleep(std::time::Duration::from_millis(3 * delay)).await;
        stop(&server, &name).await;
        let training = server.ended(&name).await;
        let states = [TrainingState::Succeeded, TrainingState::Cancelled];
        assert!(states.contains(&training.state()), "{training:#?}");
        assert_eq!(training.stop_reason(), StopReason::UserStop);
    }
}
