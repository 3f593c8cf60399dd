//! Trainings interrupted at random moments: the result is bit-identical to that of an undisturbed
//! one.

use std::{collections::BTreeMap, path::Path, time::Duration};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use visage::proto::v1::{self, StopReason, TrainingState, training_event::Kind};

use crate::support::{Server, is_final, signal, small_spec};

/// All metrics of an epoch that do not measure time, as bits.
type Figures = Vec<u64>;

/// The results of a training, without measurements of time.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Left {
    epochs: BTreeMap<u32, Figures>,
    /// Epoch, and SHA-256 of the weights and of the record of training images.
    checkpoints: BTreeMap<u32, [String; 2]>,
    stop_reason: StopReason,
    test: Option<Figures>,
}

fn figures(metrics: &v1::EpochMetrics) -> Figures {
    let numbers = [
        metrics.train_loss,
        metrics.train_mae,
        metrics.train_objective,
        metrics.val_loss,
        metrics.val_mae,
        metrics.learning_rate,
    ];
    let counts = [
        metrics.train_images,
        metrics.val_images,
        metrics.skipped_images,
        u64::from(metrics.is_best),
        u64::from(metrics.epochs_without_improvement),
    ];
    numbers
        .map(f64::to_bits)
        .into_iter()
        .chain(counts)
        .collect()
}

pub(crate) async fn left(server: &Server, name: &str) -> Left {
    let training = server.ended(name).await;
    assert_eq!(training.state(), TrainingState::Succeeded, "{training:#?}");
    let mut epochs = BTreeMap::new();
    for event in server.events(name).await {
        match event.kind {
            Some(Kind::MetricsRewound(rewound)) => {
                epochs.retain(|epoch, _| *epoch < rewound.from_epoch);
            }
            Some(Kind::EpochCompleted(metrics)) => {
                let earlier = epochs.insert(metrics.epoch, figures(&metrics));
                assert_eq!(earlier, None, "epoch {} came twice", metrics.epoch);
            }
            _ => {}
        }
    }
    let request = v1::ListCheckpointsRequest {
        parent: name.to_owned(),
        page_size: 1_000,
        ..Default::default()
    };
    let response = server.trainings().list_checkpoints(request).await.unwrap();
    let digests = |checkpoint: v1::Checkpoint| {
        let digest = |name: &str| {
            let file = checkpoint.files.iter().find(|file| file.name == name);
            file.unwrap().sha256.clone()
        };
        let digests = ["model.safetensors", "training-images.bin"].map(digest);
        (checkpoint.epoch, digests)
    };
    let checkpoints = response.into_inner().checkpoints.into_iter().map(digests);
    let test = training.test.as_ref();
    Left {
        epochs,
        checkpoints: checkpoints.collect(),
        stop_reason: training.stop_reason(),
        test: test.map(|test| vec![test.mse.to_bits(), test.mae.to_bits(), test.bias.to_bits()]),
    }
}

/// Epochs of about a second in f32, with a full checkpoint every second.
pub(crate) fn spec(dataset: &Path) -> v1::TrainingSpec {
    v1::TrainingSpec {
        max_epochs: Some(24),
        batch_size: Some(8),
        input_size: Some(96),
        precision: v1::Precision::F32.into(),
        checkpoint_interval: Some(prost_types::Duration {
            seconds: 1,
            nanos: 0,
        }),
        restart_policy: Some(v1::RestartPolicy {
            max_restarts: Some(1_000),
        }),
        ..small_spec(dataset)
    }
}

/// A spec with all components that have state.
fn spec_with_all(dataset: &Path) -> v1::TrainingSpec {
    v1::TrainingSpec {
        // bf16 if the processor multiplies in it, with other kernels than f32 and shorter epochs.
        precision: v1::Precision::Auto.into(),
        max_epochs: Some(36),
        optimizer: Some(v1::OptimizerSpec {
            kind: v1::OptimizerKind::Adamw.into(),
            learning_rate: Some(1e-3),
            max_gradient_norm: Some(1.0),
            groups: vec![v1::LearningRateGroup {
                prefix: "fc".to_owned(),
                factor: 2.0,
            }],
            ..Default::default()
        }),
        loss: Some(v1::LossSpec {
            kind: v1::LossKind::SmoothL1.into(),
            beta: Some(0.5),
        }),
        schedule: Some(v1::ScheduleSpec {
            kind: v1::ScheduleKind::Cosine.into(),
            warmup_epochs: Some(1.5),
            ..Default::default()
        }),
        ema_decay: Some(0.9),
        target_scale: v1::TargetScale::Standardised.into(),
        augmentation: Some(v1::AugmentationSpec {
            horizontal_flip: Some(true),
            ..Default::default()
        }),
        ..spec(dataset)
    }
}

/// Random augmentation that no cache can keep, learning rate steps at plateaus, and early stopping.
fn spec_with_patience(dataset: &Path) -> v1::TrainingSpec {
    v1::TrainingSpec {
        optimizer: Some(v1::OptimizerSpec {
            kind: v1::OptimizerKind::Sgd.into(),
            learning_rate: Some(1e-4),
            ..Default::default()
        }),
        schedule: Some(v1::ScheduleSpec {
            kind: v1::ScheduleKind::Plateau.into(),
            plateau_factor: Some(0.5),
            plateau_patience: Some(1),
            ..Default::default()
        }),
        early_stopping: Some(v1::EarlyStoppingSpec {
            patience: Some(12),
            ..Default::default()
        }),
        augmentation: Some(v1::AugmentationSpec {
            horizontal_flip: Some(true),
            min_crop_area: Some(0.6),
            brightness: Some(0.2),
            contrast: Some(0.2),
            saturation: Some(0.2),
            erasing: Some(0.3),
        }),
        monitor: v1::Metric::ValMae.into(),
        ..spec(dataset)
    }
}

async fn undisturbed(spec: v1::TrainingSpec, faces: usize) -> Left {
    let server = Server::start(&[]);
    let directory = server.faces("faces", faces, 5);
    let spec = at(spec, &directory);
    let name = server.queue(spec).await;
    left(&server, &name).await
}

/// The spec with another directory.
pub(crate) fn at(mut spec: v1::TrainingSpec, directory: &Path) -> v1::TrainingSpec {
    spec.dataset.as_mut().unwrap().path = directory.to_str().unwrap().to_owned();
    spec
}

/// Waits a random time after the training's process starts to train.
async fn random_moment(server: &Server, name: &str, random: &mut ChaCha8Rng) -> v1::Training {
    let training = server
        .training_when(name, "training", |training| {
            is_final(training.state()) || training.state() == TrainingState::Running
        })
        .await;
    // From the first steps to several full checkpoints later.
    let moment = Duration::from_millis(random.random_range(0..1_800));
    tokio::time::sleep(moment).await;
    training
}

#[tokio::test]
async fn workers_killed_at_random_moments_change_nothing() {
    const KILLS: u32 = 12;
    let mut random = ChaCha8Rng::seed_from_u64(11);
    let expected = undisturbed(spec(Path::new("")), 150).await;
    let server = Server::start(&[]);
    let directory = server.faces("faces", 150, 5);
    let name = server.queue(at(spec(Path::new("")), &directory)).await;
    let mut kills = 0;
    while kills < KILLS {
        let training = random_moment(&server, &name, &mut random).await;
        assert!(
            !is_final(training.state()),
            "it was over after {kills} kills"
        );
        let pid = server.worker_pid(&name);
        signal(pid, "KILL");
        kills += 1;
        server
            .training_when(&name, "started again", |training| {
                training.attempt == kills + 1 || is_final(training.state())
            })
            .await;
    }
    let found = left(&server, &name).await;
    assert_eq!(found, expected);
    assert_eq!(server.training(&name).await.attempt, kills + 1);
}

#[tokio::test]
async fn servers_killed_at_random_moments_change_nothing() {
    const KILLS: u32 = 12;
    let mut random = ChaCha8Rng::seed_from_u64(12);
    let expected = undisturbed(spec_with_all(Path::new("")), 100).await;
    let mut server = Server::start(&[]);
    let directory = server.faces("faces", 100, 5);
    let name = server
        .queue(at(spec_with_all(Path::new("")), &directory))
        .await;
    for kill in 0..KILLS {
        let training = random_moment(&server, &name, &mut random).await;
        assert!(
            !is_final(training.state()),
            "it was over after {kill} kills"
        );
        server.kill();
        server.start_again();
    }
    assert_eq!(left(&server, &name).await, expected);
}

#[tokio::test]
async fn pauses_and_orderly_restarts_at_random_moments_change_nothing() {
    const TIMES: u32 = 8;
    let mut random = ChaCha8Rng::seed_from_u64(13);
    let expected = undisturbed(spec_with_patience(Path::new("")), 100).await;
    let mut server = Server::start(&["--shutdown-grace", "20s"]);
    let directory = server.faces("faces", 100, 5);
    let name = server
        .queue(at(spec_with_patience(Path::new("")), &directory))
        .await;
    for time in 0..TIMES {
        let training = random_moment(&server, &name, &mut random).await;
        assert!(
            !is_final(training.state()),
            "it was over after {time} times"
        );
        if time % 2 == 0 {
            pause_and_resume(&server, &name).await;
        } else {
            signal(server.pid(), "TERM");
            assert_eq!(server.wait().await, Some(0));
            server.start_again();
        }
    }
    let found = left(&server, &name).await;
    assert_eq!(found, expected);
    // Orderly interruptions lose nothing: no epoch is repeated.
    let events = server.events(&name).await;
    let epochs = events
        .iter()
        .filter(|event| matches!(event.kind, Some(Kind::EpochCompleted(_))));
    assert_eq!(epochs.count(), found.epochs.len());
}

async fn pause_and_resume(server: &Server, name: &str) {
    let request = v1::PauseTrainingRequest {
        name: name.to_owned(),
    };
    server.trainings().pause_training(request).await.unwrap();
    let paused = server
        .training_when(name, "paused", |training| {
            training.state() == TrainingState::Paused
        })
        .await;
    assert_eq!(paused.queue_position, 0);
    let request = v1::ResumeTrainingRequest {
        name: name.to_owned(),
    };
    server.trainings().resume_training(request).await.unwrap();
}
