//! Servers killed at any moment, and the state that the next one restores.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{Code, transport::Channel};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest,
};
use visage::proto::v1::{
    self, StopReason, TrainingState, training_event::Kind,
    training_service_client::TrainingServiceClient,
};

use crate::support::{Server, is_alive, long_spec, signal, small_spec, wait_until};

/// A client that follows a training across restarts by its cursor, and keeps all received events.
struct Watcher {
    seen: Arc<Mutex<Vec<v1::TrainingEvent>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Watcher {
    fn start(mut client: TrainingServiceClient<Channel>, name: String) -> Self {
        let seen = Arc::new(Mutex::new(Vec::<v1::TrainingEvent>::new()));
        let kept = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            loop {
                let after_sequence = kept.lock().unwrap().last().map_or(0, |last| last.sequence);
                let request = v1::StreamEpochMetricsRequest {
                    name: name.clone(),
                    after_sequence,
                    ..Default::default()
                };
                let Ok(response) = client.stream_epoch_metrics(request).await else {
                    // The server is down at the moment.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                };
                let mut stream = response.into_inner();
                loop {
                    match stream.next().await {
                        Some(Ok(response)) => {
                            let event = response.event.unwrap();
                            if event.sequence > 0 {
                                kept.lock().unwrap().push(event);
                            }
                        }
                        // OK is sent only after the final state.
                        None => return,
                        Some(Err(_)) => break,
                    }
                }
            }
        });
        Watcher { seen, task }
    }

    async fn all(self) -> Vec<v1::TrainingEvent> {
        tokio::time::timeout(crate::support::PATIENCE, self.task)
            .await
            .expect("the stream did not end")
            .unwrap();
        std::mem::take(&mut *self.seen.lock().unwrap())
    }
}

/// Checks for gaps and repeats, and that epochs repeat only after a rewind event.
fn assert_complete(events: &[v1::TrainingEvent]) {
    let sequences: Vec<u64> = events.iter().map(|event| event.sequence).collect();
    assert_eq!(sequences, (1..=events.len() as u64).collect::<Vec<_>>());
    let mut next = 1;
    for event in events {
        match &event.kind {
            Some(Kind::EpochCompleted(metrics)) => {
                assert_eq!(metrics.epoch, next);
                next += 1;
            }
            Some(Kind::MetricsRewound(rewound)) => {
                assert!(rewound.from_epoch <= next);
                next = rewound.from_epoch;
            }
            _ => {}
        }
    }
}

/// Checks that every file of every checkpoint of a training exists as recorded.
async fn assert_checkpoints(server: &Server, name: &str) -> usize {
    let list = v1::ListCheckpointsRequest {
        parent: name.to_owned(),
        ..Default::default()
    };
    let response = server.trainings().list_checkpoints(list.clone()).await;
    let response = response.unwrap();
    let checkpoints = response.into_inner().checkpoints;
    for checkpoint in &checkpoints {
        for file in &checkpoint.files {
            let request = v1::DownloadCheckpointRequest {
                name: checkpoint.name.clone(),
                file: file.name.clone(),
            };
            let response = server.trainings().download_checkpoint(request).await;
            let mut stream = match response {
                Ok(response) => response.into_inner(),
                // An attempt that started before the end of this epoch repeats it and replaces its
                // checkpoint.
                Err(status) if status.code() == Code::NotFound => {
                    let listed = server.trainings().list_checkpoints(list.clone()).await;
                    let listed = listed.unwrap().into_inner().checkpoints;
                    assert!(
                        listed
                            .iter()
                            .all(|one| one.create_time != checkpoint.create_time),
                        "{status}"
                    );
                    continue;
                }
                Err(status) => panic!("{status}"),
            };
            let (mut digest, mut size) = (Sha256::new(), 0);
            while let Some(chunk) = stream.next().await {
                let data = chunk.unwrap().data;
                assert!(data.len() <= 1 << 20);
                size += data.len() as u64;
                digest.update(&data);
            }
            assert_eq!(size, file.size_bytes);
            assert_eq!(format!("{:x}", digest.finalize()), file.sha256);
        }
    }
    checkpoints.len()
}

#[tokio::test]
async fn server_killed_at_any_moment_loses_no_sent_event() {
    let mut random = ChaCha8Rng::seed_from_u64(2026);
    let mut server = Server::start(&["--max-restarts", "100"]);
    server.train_small().await;
    let faces = server.faces("faces", 100, 1);
    let spec = v1::TrainingSpec {
        max_epochs: Some(4),
        promote: v1::Promote::Always.into(),
        ..small_spec(&faces)
    };
    let name = server.queue(spec).await;
    let watcher = Watcher::start(server.trainings(), name.clone());
    let mut workers = HashSet::new();
    for kill in 0..8 {
        // From the queue through scan, loading and epochs to the end, which takes two to five
        // seconds.
        let moment = Duration::from_millis(random.random_range(0..2_500));
        let deadline = tokio::time::Instant::now() + moment;
        while tokio::time::Instant::now() < deadline {
            let work = server.path("data").join("work");
            workers.extend(pids_under(&work));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if kill % 3 == 2 {
            // Both at once: the server first, because it would record the death of a worker.
            signal(server.pid(), "STOP");
            for &pid in workers.iter().filter(|pid| is_alive(**pid)) {
                signal(pid, "KILL");
            }
        }
        server.kill();
        server.start_again();
        assert_checkpoints(&server, &name).await;
        server.predict().await.unwrap();
    }
    let training = server.ended(&name).await;
    let received = watcher.all().await;
    assert_complete(&received);
    assert_eq!(received, server.events(&name).await);
    assert_eq!(training.state(), TrainingState::Succeeded, "{training:#?}");
    assert_eq!(training.stop_reason(), StopReason::MaxEpochs);
    assert_eq!(training.last.unwrap().epoch, 4);
    assert!(assert_checkpoints(&server, &name).await > 0);
    assert_eq!(training.model_version, "models/age/versions/2");
    for pid in workers {
        wait_until("no worker is left over", async || !is_alive(pid)).await;
    }
    let answer = server.predict().await.unwrap();
    assert_eq!(answer.model_version, "models/age/versions/2");
}

#[tokio::test]
async fn acknowledged_changes_survive_an_immediate_kill() {
    let mut server = Server::start(&[]);
    let version = server.train_small().await;
    for round in 0..3 {
        let alias = format!("round-{round}");
        let request = v1::SetAliasRequest {
            name: version.clone(),
            alias: alias.clone(),
            expected_version: None,
        };
        server.models().set_alias(request).await.unwrap();
        let name = server
            .queue(long_spec(&server.faces(&alias, 40, round)))
            .await;
        server.kill();
        server.start_again();
        let request = v1::GetModelVersionRequest {
            name: format!("models/age/versions/{alias}"),
        };
        let found = server.models().get_model_version(request).await.unwrap();
        assert_eq!(found.into_inner().version.unwrap().name, version);
        let training = server.training(&name).await;
        assert!(!crate::support::is_final(training.state()), "{training:#?}");
        let request = v1::CancelTrainingRequest { name, force: true };
        server.trainings().cancel_training(request).await.unwrap();
    }
}

#[tokio::test]
async fn hanging_worker_does_not_outlive_its_server() {
    let mut server = Server::start(&["--shutdown-grace", "1s"]);
    let name = server.queue(long_spec(&server.faces("faces", 60, 1))).await;
    server.in_epoch(&name).await;
    let pid = server.worker_pid(&name);
    signal(pid, "STOP");
    server.kill();
    server.start_again();
    wait_until("the stopped worker is gone", async || !is_alive(pid)).await;
    // The training continues with another worker.
    let training = server.in_epoch(&name).await;
    assert_eq!(training.attempt, 2);
    assert_ne!(server.worker_pid(&name), pid);
}

#[tokio::test]
async fn training_fails_after_too_many_server_crashes() {
    let mut server = Server::start(&["--max-restarts", "1"]);
    let name = server.queue(long_spec(&server.faces("faces", 60, 1))).await;
    for _ in 0..2 {
        server.in_epoch(&name).await;
        server.kill();
        server.start_again();
    }
    let training = server.ended(&name).await;
    assert_eq!(training.state(), TrainingState::Failed, "{training:#?}");
    assert_eq!(training.stop_reason(), StopReason::ServerRestartLimit);
}

#[tokio::test]
async fn shutdown_notifies_followers_and_the_training_resumes_later() {
    let mut server = Server::start(&["--shutdown-grace", "5s"]);
    let name = server.queue(long_spec(&server.faces("faces", 60, 1))).await;
    server.in_epoch(&name).await;
    let request = v1::StreamEpochMetricsRequest {
        name: name.clone(),
        ..Default::default()
    };
    let stream = server.trainings().stream_epoch_metrics(request).await;
    let mut stream = stream.unwrap().into_inner();
    stream.next().await.unwrap().unwrap();
    let pid = server.worker_pid(&name);
    signal(server.pid(), "TERM");
    let end = loop {
        match stream.next().await {
            Some(Ok(_)) => {}
            Some(Err(status)) => break status,
            None => panic!("the stream ended with OK, but the training continues"),
        }
    };
    use tonic_types::StatusExt;
    assert_eq!(end.code(), tonic::Code::Unavailable, "{end:?}");
    assert_eq!(crate::support::reason(&end), "SHUTTING_DOWN");
    assert!(end.get_details_retry_info().is_some());
    assert_eq!(server.wait().await, Some(0));
    assert!(!is_alive(pid), "the worker outlived its server");
    assert!(!server.path("ready.json").exists());
    server.start_again();
    server.in_epoch(&name).await;
}

/// Process ids in the work directories.
fn pids_under(work: &std::path::Path) -> Vec<u32> {
    let Ok(directories) = fs_err::read_dir(work) else {
        return Vec::new();
    };
    let pid = |directory: std::io::Result<fs_err::DirEntry>| -> Option<u32> {
        let text = fs_err::read_to_string(directory.ok()?.path().join("worker.pid")).ok()?;
        text.split_whitespace().next()?.parse().ok()
    };
    directories.filter_map(pid).collect()
}

#[tokio::test]
async fn a_second_interruption_of_the_first_epoch_loses_no_more_than_the_first() {
    let server = Server::start(&[]);
    let name = server
        .queue(long_spec(&server.faces("faces", 400, 1)))
        .await;
    server.in_epoch(&name).await;
    let request = v1::PauseTrainingRequest { name: name.clone() };
    server.trainings().pause_training(request).await.unwrap();
    let is_paused = |training: &v1::Training| training.state() == TrainingState::Paused;
    server.training_when(&name, "paused", is_paused).await;
    let request = v1::ResumeTrainingRequest { name: name.clone() };
    server.trainings().resume_training(request).await.unwrap();
    let training = server.running(&name, 2).await;
    assert!(training.last.is_none(), "the first epoch is over already");
    signal(server.worker_pid(&name), "KILL");
    server.running(&name, 3).await;
    let log = fs_err::read_to_string(server.path("log")).unwrap();
    let resumed = log.matches("resumed from a full checkpoint").count();
    assert_eq!(resumed, 2);
}

#[tokio::test]
async fn an_open_reflection_stream_does_not_delay_the_shutdown() {
    let mut server = Server::start(&["--shutdown-grace", "60s"]);
    let (open, requests) = tokio::sync::mpsc::channel(1);
    let list = MessageRequest::ListServices(String::new());
    let request = ServerReflectionRequest {
        message_request: Some(list),
        ..Default::default()
    };
    open.send(request).await.unwrap();
    let mut client = ServerReflectionClient::new(server.channel());
    let answers = client.server_reflection_info(ReceiverStream::new(requests));
    let mut answers = answers.await.unwrap().into_inner();
    assert!(answers.message().await.unwrap().is_some());
    let begun = std::time::Instant::now();
    signal(server.pid(), "TERM");
    assert!(matches!(answers.message().await, Ok(None)));
    // A client without further requests.
    drop((client, answers, open));
    assert_eq!(server.wait().await, Some(0));
    assert!(begun.elapsed() < Duration::from_secs(30));
}
