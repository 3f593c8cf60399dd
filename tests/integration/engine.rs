//! Feature cache and precisions: faster, with equal metrics.

use visage::proto::v1::{self, FeatureCache, Precision, TrainingState, training_event::Kind};

use crate::support::{Server, small_spec, wait_until};

/// Metrics of all epochs.
async fn epochs(server: &Server, spec: v1::TrainingSpec) -> Vec<v1::EpochMetrics> {
    let training = server.ended(&server.queue(spec).await).await;
    assert_eq!(training.state(), TrainingState::Succeeded, "{training:#?}");
    let of_epoch = |event: v1::TrainingEvent| match event.kind {
        Some(Kind::EpochCompleted(metrics)) => Some(metrics),
        _ => None,
    };
    let events = server.events(&training.name).await.into_iter();
    events.filter_map(of_epoch).collect()
}

fn losses(epochs: &[v1::EpochMetrics]) -> Vec<(f64, f64, f64, u64)> {
    let of = |epoch: &v1::EpochMetrics| {
        (
            epoch.train_loss,
            epoch.val_loss,
            epoch.val_mae,
            epoch.skipped_images,
        )
    };
    epochs.iter().map(of).collect()
}

#[tokio::test]
async fn kept_features_give_the_same_losses_to_the_bit() {
    let server = Server::start(&[]);
    let faces = server.faces("faces", 70, 1);
    // Accepted by its header in the scan, but not decodable: skipped in every epoch.
    let whole = fs_err::read(&crate::support::files_of(&faces)[0]).unwrap();
    fs_err::write(faces.join("30_0_0_20200101.jpg"), &whole[..whole.len() / 2]).unwrap();
    let spec = |cache: FeatureCache| v1::TrainingSpec {
        max_epochs: Some(3),
        input_size: Some(64),
        feature_cache: cache.into(),
        precision: Precision::F32.into(),
        ..small_spec(&faces)
    };
    let expected = losses(&epochs(&server, spec(FeatureCache::Off)).await);
    assert_eq!(expected.len(), 3);
    for cache in [FeatureCache::Memory, FeatureCache::Disk, FeatureCache::Auto] {
        let found = losses(&epochs(&server, spec(cache)).await);
        assert_eq!(found, expected, "{cache:?}");
    }
    // The directory is removed shortly after the final event.
    let work = server.path("data").join("work");
    wait_until("without features on disk", || async {
        fs_err::read_dir(&work).map_or(0, |directory| directory.count()) == 0
    })
    .await;
}

#[tokio::test]
async fn kept_features_of_mirrored_images_give_the_same_losses_to_the_bit() {
    let server = Server::start(&[]);
    let faces = server.faces("faces", 70, 1);
    let spec = |cache: FeatureCache, is_mirrored: bool| v1::TrainingSpec {
        max_epochs: Some(4),
        input_size: Some(64),
        feature_cache: cache.into(),
        precision: Precision::F32.into(),
        augmentation: Some(v1::AugmentationSpec {
            horizontal_flip: Some(is_mirrored),
            ..Default::default()
        }),
        ..small_spec(&faces)
    };
    let expected = losses(&epochs(&server, spec(FeatureCache::Off, true)).await);
    let found = losses(&epochs(&server, spec(FeatureCache::Memory, true)).await);
    assert_eq!(found, expected);
    let plain = losses(&epochs(&server, spec(FeatureCache::Memory, false)).await);
    assert_ne!(found, plain, "nothing was mirrored");
}

#[tokio::test]
async fn cached_epochs_read_no_image() {
    let server = Server::start(&[]);
    let faces = server.faces("faces", 120, 1);
    let spec = v1::TrainingSpec {
        max_epochs: Some(10_000),
        feature_cache: FeatureCache::Memory.into(),
        ..small_spec(&faces)
    };
    let name = server.queue(spec).await;
    server
        .training_when(&name, "past its first epoch", |training| {
            training.last.is_some()
        })
        .await;
    fs_err::rename(&faces, server.path("gone")).unwrap();
    let training = server
        .training_when(&name, "some epochs further", |training| {
            crate::support::is_final(training.state())
                || training.last.is_some_and(|last| last.epoch > 4)
        })
        .await;
    assert_eq!(training.state(), TrainingState::Running, "{training:#?}");
    assert_eq!(training.last.unwrap().skipped_images, 0);
}

#[tokio::test]
async fn bf16_training_matches_f32() {
    let server = Server::start(&[]);
    let faces = server.faces("faces", 120, 1);
    let spec = |precision: Precision, seed: u64| v1::TrainingSpec {
        max_epochs: Some(6),
        input_size: Some(64),
        batch_size: Some(16),
        precision: precision.into(),
        seed: Some(seed),
        ..small_spec(&faces)
    };
    let best = |epochs: Vec<v1::EpochMetrics>| {
        let maes = epochs.iter().map(|epoch| epoch.val_mae);
        maes.fold(f64::INFINITY, f64::min)
    };
    let in_f32 = best(epochs(&server, spec(Precision::F32, 1)).await);
    let in_bf16 = best(epochs(&server, spec(Precision::Bf16, 1)).await);
    // Split and order are equal, so only the precision differs; another seed differs by years on so
    // few images.
    assert!(
        (in_f32 - in_bf16).abs() < 1.0,
        "{in_f32} and {in_bf16} years"
    );
}
