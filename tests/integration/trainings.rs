//! Stop and cancel in every phase, and the queue.

use std::time::{Duration, Instant};

use tonic::Code;
use visage::proto::v1::{self, StopReason, TrainingState};

use crate::support::{Server, code, is_alive, long_spec, small_spec, states};

async fn stop(server: &Server, name: &str) -> Result<v1::Training, tonic::Status> {
    let request = v1::StopTrainingRequest {
        name: name.to_owned(),
    };
    let response = server.trainings().stop_training(request).await?;
    Ok(response.into_inner().training.unwrap())
}

async fn cancel(server: &Server, name: &str, force: bool) -> Result<v1::Training, tonic::Status> {
    let request = v1::CancelTrainingRequest {
        name: name.to_owned(),
        force,
    };
    let response = server.trainings().cancel_training(request).await?;
    Ok(response.into_inner().training.unwrap())
}

#[tokio::test]
async fn stop_during_an_epoch_keeps_the_best_checkpoint() {
    let server = Server::start(&[]);
    let name = server.queue(long_spec(&server.faces("faces", 60, 1))).await;
    server
        .training_when(&name, "past its first epoch", |training| {
            training.last.is_some()
        })
        .await;
    let asked = Instant::now();
    assert_eq!(
        stop(&server, &name).await.unwrap().state(),
        TrainingState::Stopping
    );
    let again = stop(&server, &name).await;
    assert!(
        matches!(code(&again), Code::Ok | Code::FailedPrecondition),
        "{again:?}"
    );
    let training = server.ended(&name).await;
    assert!(
        asked.elapsed() < Duration::from_secs(20),
        "{:?}",
        asked.elapsed()
    );
    assert_eq!(training.state(), TrainingState::Succeeded, "{training:#?}");
    assert_eq!(training.stop_reason(), StopReason::UserStop);
    assert_eq!(training.model_version, "models/age/versions/1");
    server.predict().await.unwrap();
    assert_eq!(code(&stop(&server, &name).await), Code::FailedPrecondition);
}

#[tokio::test]
async fn stop_before_the_first_epoch_is_complete_cancels() {
    let server = Server::start(&[]);
    let spec = v1::TrainingSpec {
        input_size: Some(224),
        batch_size: Some(2),
        ..long_spec(&server.faces("faces", 300, 1))
    };
    let name = server.queue(spec).await;
    server.in_epoch(&name).await;
    stop(&server, &name).await.unwrap();
    let training = server.ended(&name).await;
    assert_eq!(training.state(), TrainingState::Cancelled, "{training:#?}");
    assert!(training.last.is_none());
    assert_eq!(training.model_version, "");
}

#[tokio::test]
async fn cancel_ends_a_training_during_an_epoch_with_and_without_force() {
    let server = Server::start(&[]);
    let faces = server.faces("faces", 120, 1);
    for force in [false, true] {
        let name = server.queue(long_spec(&faces)).await;
        server.in_epoch(&name).await;
        let pid = server.worker_pid(&name);
        let asked = Instant::now();
        let training = cancel(&server, &name, force).await.unwrap();
        assert_eq!(training.state(), TrainingState::Cancelling);
        let training = server.ended(&name).await;
        assert_eq!(training.state(), TrainingState::Cancelled, "{training:#?}");
        assert_eq!(training.stop_reason(), StopReason::UserStop);
        assert!(
            asked.elapsed() < Duration::from_secs(15),
            "{:?}",
            asked.elapsed()
        );
        assert!(!is_alive(pid));
        assert_eq!(training.failure, None);
        let expected = [
            TrainingState::Queued,
            TrainingState::Preparing,
            TrainingState::Running,
            TrainingState::Cancelling,
            TrainingState::Cancelled,
        ];
        assert_eq!(states(&server.events(&name).await), expected);
        assert_eq!(
            code(&cancel(&server, &name, force).await),
            Code::FailedPrecondition
        );
    }
    let request = v1::GetModelVersionRequest {
        name: "models/age/versions/live".to_owned(),
    };
    let live = server.models().get_model_version(request).await;
    assert_eq!(code(&live), Code::NotFound, "nothing was published");
}

#[tokio::test]
async fn trainings_wait_in_order_and_one_runs_at_a_time() {
    let server = Server::start(&[]);
    let faces = server.faces("faces", 60, 1);
    let first = server.queue(long_spec(&faces)).await;
    server.in_epoch(&first).await;
    let (second, third, fourth) = (
        server.queue(small_spec(&faces)).await,
        server.queue(small_spec(&faces)).await,
        server.queue(small_spec(&faces)).await,
    );
    assert_eq!(server.training(&first).await.queue_position, 0);
    for (position, name) in (1u32..).zip([&second, &third, &fourth]) {
        let training = server.training(name).await;
        assert_eq!(training.state(), TrainingState::Queued);
        assert_eq!(training.queue_position, position, "{name}");
    }
    cancel(&server, &third, false).await.unwrap();
    assert_eq!(
        server.training(&third).await.state(),
        TrainingState::Cancelled
    );
    assert_eq!(server.training(&fourth).await.queue_position, 2);
    cancel(&server, &first, true).await.unwrap();
    let (second, fourth) = (server.ended(&second).await, server.ended(&fourth).await);
    assert_eq!(second.state(), TrainingState::Succeeded);
    assert_eq!(fourth.state(), TrainingState::Succeeded);
    let seconds = |time: Option<prost_types::Timestamp>| {
        let time = time.unwrap();
        time.seconds as f64 + f64::from(time.nanos) / 1e9
    };
    assert!(
        seconds(second.end_time) <= seconds(fourth.start_time),
        "they ran at the same time"
    );
}

#[tokio::test]
async fn early_stopping_counts_validations_without_an_improvement() {
    let server = Server::start(&[]);
    let spec = v1::TrainingSpec {
        max_epochs: Some(50),
        early_stopping: Some(v1::EarlyStoppingSpec {
            patience: Some(2),
            // More than any loss can decrease, so that only the first epoch is an improvement.
            min_delta: Some(1e6),
        }),
        ..small_spec(&server.faces("faces", 40, 1))
    };
    let training = server.ended(&server.queue(spec).await).await;
    assert_eq!(training.state(), TrainingState::Succeeded, "{training:#?}");
    assert_eq!(training.stop_reason(), StopReason::EarlyStopped);
    assert_eq!(training.last.unwrap().epoch, 3);
}
