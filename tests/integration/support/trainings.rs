//! Starting and waiting for trainings.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use tonic::{Status, transport::Channel};
use visage::proto::v1::{self, TrainingState, training_service_client::TrainingServiceClient};

use crate::support::{PATIENCE, Server};

impl Server {
    /// Queues a training and returns its name.
    pub(crate) async fn queue(&self, spec: v1::TrainingSpec) -> String {
        let request = v1::StartTrainingRequest {
            spec: Some(spec),
            ..Default::default()
        };
        let response = self.trainings().start_training(request).await.unwrap();
        response.into_inner().training.unwrap().name
    }

    pub(crate) async fn training(&self, name: &str) -> v1::Training {
        get_training(&mut self.trainings(), name).await.unwrap()
    }

    /// Waits until the training satisfies the condition.
    pub(crate) async fn training_when(
        &self,
        name: &str,
        what: &str,
        wanted: impl Fn(&v1::Training) -> bool,
    ) -> v1::Training {
        let begun = Instant::now();
        loop {
            let training = self.training(name).await;
            if wanted(&training) {
                return training;
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "{name} was not {what} in time: {training:#?}"
            );
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    pub(crate) async fn ended(&self, name: &str) -> v1::Training {
        self.training_when(name, "ended", |training| is_final(training.state()))
            .await
    }

    /// Waits until the training is within an epoch's training images.
    pub(crate) async fn in_epoch(&self, name: &str) -> v1::Training {
        let training = self
            .training_when(name, "in an epoch", |training| {
                let progress = training.progress.clone().unwrap_or_default();
                let is_running = training.state() == TrainingState::Running;
                is_final(training.state())
                    || (is_running && progress.phase == "train" && progress.step > 0)
            })
            .await;
        assert_eq!(training.state(), TrainingState::Running, "{training:#?}");
        training
    }

    /// Trains a small model and returns the name of its version.
    pub(crate) async fn train_small(&self) -> String {
        let faces = self.faces("small", 40, 3);
        let training = self.ended(&self.queue(small_spec(&faces)).await).await;
        assert_eq!(
            training.state(),
            TrainingState::Succeeded,
            "{:?}",
            training.failure
        );
        training.model_version
    }

    /// Process id of the training's worker.
    pub(crate) fn worker_pid(&self, training: &str) -> u32 {
        let text = fs_err::read_to_string(self.worker_pid_file(training)).unwrap();
        text.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// Exists while a training has a process.
    pub(crate) fn worker_pid_file(&self, training: &str) -> PathBuf {
        let id = training.trim_start_matches("trainings/");
        self.path("data").join("work").join(id).join("worker.pid")
    }

    /// Waits until the attempt with this number is running.
    pub(crate) async fn running(&self, name: &str, attempt: u32) -> v1::Training {
        let runs = |training: &v1::Training| {
            training.attempt == attempt && training.state() == TrainingState::Running
        };
        self.training_when(name, "running again", runs).await
    }

    /// All events of a training, fetched in pages.
    pub(crate) async fn events(&self, training: &str) -> Vec<v1::TrainingEvent> {
        let mut events = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = v1::ListEpochMetricsRequest {
                name: training.to_owned(),
                page_size: 7,
                page_token,
                ..Default::default()
            };
            let response = self.trainings().list_epoch_metrics(request).await;
            let response = response.unwrap().into_inner();
            events.extend(response.events);
            page_token = response.next_page_token;
            if page_token.is_empty() {
                return events;
            }
        }
    }
}

async fn get_training(
    client: &mut TrainingServiceClient<Channel>,
    name: &str,
) -> Result<v1::Training, Status> {
    let request = v1::GetTrainingRequest {
        name: name.to_owned(),
    };
    let response = client.get_training(request).await?.into_inner();
    Ok(response.training.unwrap())
}

/// A training of two epochs that takes about a second.
pub(crate) fn small_spec(dataset: &Path) -> v1::TrainingSpec {
    v1::TrainingSpec {
        dataset: Some(v1::DatasetSpec {
            path: dataset.to_str().unwrap().to_owned(),
            ..Default::default()
        }),
        init: Some(v1::InitSpec {
            kind: v1::InitKind::Random.into(),
            ..Default::default()
        }),
        max_epochs: Some(2),
        batch_size: Some(8),
        input_size: Some(32),
        ..Default::default()
    }
}

/// A training whose epochs take seconds and that runs until it is stopped.
pub(crate) fn long_spec(dataset: &Path) -> v1::TrainingSpec {
    v1::TrainingSpec {
        max_epochs: Some(10_000),
        batch_size: Some(4),
        input_size: Some(160),
        ..small_spec(dataset)
    }
}

pub(crate) fn is_final(state: TrainingState) -> bool {
    matches!(
        state,
        TrainingState::Succeeded | TrainingState::Failed | TrainingState::Cancelled
    )
}

/// The states of a training, in order.
pub(crate) fn states(events: &[v1::TrainingEvent]) -> Vec<TrainingState> {
    let state = |event: &v1::TrainingEvent| match &event.kind {
        Some(v1::training_event::Kind::StateChanged(change)) => Some(change.state()),
        _ => None,
    };
    events.iter().filter_map(state).collect()
}
