//! Backups of data directories with a real database and real artifacts.

use std::{collections::BTreeMap, path::PathBuf};

use fs_err as fs;
use tempfile::TempDir;
use tokio_util::bytes::Bytes;

use super::*;
use crate::{
    artifacts::Artifacts,
    proto::v1::{self as pb, DatasetKind, DatasetState, training_event::Kind},
    store::{Change, DatasetLimits, Inserted, Store},
};

/// A data directory with a training, its checkpoint and an uploaded dataset.
struct Data {
    directory: TempDir,
    store: Store,
    artifacts: Artifacts,
}

const WEIGHTS: &[u8] = b"weights of epoch 1";

impl Data {
    async fn create() -> Self {
        let directory = TempDir::new().unwrap();
        let data_dir = directory.path().join("data");
        let store = Store::open(&data_dir).await.unwrap();
        let artifacts = Artifacts::local(&data_dir.join("artifacts")).await.unwrap();
        let datasets = data_dir.join("datasets");
        fs::create_dir_all(datasets.join("faces-1/sub")).unwrap();
        fs::write(datasets.join(".visage"), b"").unwrap();
        fs::write(datasets.join("faces-1/30.jpg"), b"first face").unwrap();
        fs::write(datasets.join("faces-1/sub/40.jpg"), b"second face").unwrap();
        store.mark_files().unwrap();
        let dataset = pb::Dataset {
            name: "datasets/faces".to_owned(),
            kind: DatasetKind::Uploaded.into(),
            state: DatasetState::Ready.into(),
            path: datasets.join("faces-1").to_string_lossy().into_owned(),
            upload: "u".to_owned(),
            ..Default::default()
        };
        let limits = DatasetLimits {
            unfinished: 10,
            all: 10,
        };
        store.insert_dataset(dataset, limits).await.unwrap();
        let data = Self {
            directory,
            store,
            artifacts,
        };
        let training = pb::Training {
            name: "trainings/a".to_owned(),
            ..Default::default()
        };
        let inserted = data
            .store
            .insert_training(training, None, 10)
            .await
            .unwrap();
        assert!(matches!(inserted, Inserted::New(_)));
        data.save(1, WEIGHTS).await;
        data
    }

    /// Stores a checkpoint of the training, and returns the path of its artifact.
    async fn save(&self, epoch: u32, weights: &'static [u8]) -> PathBuf {
        let stored = self.artifacts.put_bytes(Bytes::from_static(weights)).await;
        let digest = stored.unwrap();
        let saved = Kind::CheckpointSaved(pb::Checkpoint {
            epoch,
            files: vec![pb::CheckpointFile {
                name: "model.safetensors".to_owned(),
                size_bytes: digest.size,
                sha256: digest.sha256.clone(),
            }],
            ..Default::default()
        });
        let decide = move |_: &mut pb::Training| {
            Ok::<_, crate::store::Error>(Change {
                events: vec![saved],
                ..Default::default()
            })
        };
        self.store.update("a", decide).await.unwrap();
        self.artifacts.local_file(&digest.sha256).await.unwrap()
    }

    fn data_dir(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("backups")
    }

    async fn back_up(&self, keep: Option<usize>) -> Result<create::Created, Error> {
        let options = Options {
            data_dir: self.data_dir(),
            to: self.root(),
            keep,
        };
        Box::pin(create(&options, &mut |_, _| {})).await
    }

    async fn verify(&self) -> Vec<String> {
        let verified = Box::pin(verify(&self.root(), &mut |_, _| {}))
            .await
            .unwrap();
        verified.damaged.iter().map(Damage::to_string).collect()
    }

    fn restore(&self, to: &str, ignore_damage: bool) -> Result<restore::Restored, Error> {
        let target = self.directory.path().join(to);
        restore(&self.root(), None, &target, ignore_damage, &mut |_, _| {})
    }
}

/// Relative paths and contents of all files but the database, its lock and the marks.
fn tree(directory: &std::path::Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut ahead = vec![directory.to_owned()];
    while let Some(next) = ahead.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(directory).unwrap().to_string_lossy();
            if path.is_dir() {
                ahead.push(path);
            } else if !name.starts_with("visage.") && !name.ends_with(".store") {
                found.insert(name.into_owned(), fs::read(&path).unwrap());
            }
        }
    }
    found
}

#[tokio::test]
async fn a_backup_of_a_running_server_is_restored_and_copies_only_what_is_new() {
    let data = Data::create().await;
    let first = data.back_up(None).await.unwrap();
    assert_eq!(first.damaged, []);
    // The weights, two faces and the mark of the datasets.
    assert_eq!((first.files, first.copied_files), (4, 4));
    let again = data.back_up(None).await.unwrap();
    assert_eq!((again.files, again.copied_files), (4, 0));
    data.save(2, b"weights of epoch 2").await;
    let third = data.back_up(None).await.unwrap();
    assert_eq!((third.files, third.copied_files), (5, 1));
    assert_eq!(data.verify().await, [""; 0]);

    let restored = data.restore("restored", false).unwrap();
    assert_eq!((restored.files, restored.damaged.len()), (5, 0));
    let target = data.directory.path().join("restored");
    assert_eq!(tree(&target), tree(&data.data_dir()));
    let store = Store::open(&target).await.unwrap();
    assert_eq!(store.referenced_digests().await.unwrap().len(), 2);
    store.close().await.unwrap();
    let refused = data.restore("restored", false).unwrap_err();
    assert!(matches!(refused, Error::NotEmpty(_)), "{refused}");
}

#[tokio::test]
async fn damage_of_the_data_directory_is_reported_and_the_rest_is_backed_up() {
    let data = Data::create().await;
    let path = data.save(2, b"weights of epoch 2").await;
    fs::write(&path, b"changed of epoch 2").unwrap();
    let created = data.back_up(None).await.unwrap();
    assert_eq!(created.damaged.len(), 1);
    assert_eq!(created.damaged[0].of, ["trainings/a/checkpoints/2"]);
    fs::remove_file(&path).unwrap();
    fs::remove_dir_all(data.data_dir().join("datasets/faces-1")).unwrap();
    let created = data.back_up(None).await.unwrap();
    let owners: Vec<_> = created.damaged.iter().flat_map(|found| &found.of).collect();
    assert_eq!(owners, ["trainings/a/checkpoints/2", "datasets/faces"]);
    let restored = data.restore("restored", false).unwrap();
    assert_eq!((restored.files, restored.damaged.len()), (2, 2));

    let mut verified = Box::pin(verify(&data.data_dir(), &mut |_, _| {}))
        .await
        .unwrap();
    verified.damaged.sort_by(|a, b| a.path.cmp(&b.path));
    let owners: Vec<_> = verified
        .damaged
        .iter()
        .flat_map(|found| &found.of)
        .collect();
    assert_eq!(owners, ["trainings/a/checkpoints/2", "datasets/faces"]);
}

#[tokio::test]
async fn damage_of_a_backup_is_found_and_refused() {
    let data = Data::create().await;
    data.back_up(None).await.unwrap();
    let (_, face) = content::stored(&data.root())
        .unwrap()
        .into_iter()
        .find(|(_, path)| fs::read(path).unwrap() == b"first face")
        .unwrap();
    fs::write(&face, b"FIRST face").unwrap();
    let found = data.verify().await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("datasets/faces-1/30.jpg has the SHA-256"));
    assert!(found[0].contains("datasets/faces"), "{found:?}");

    let refused = data.restore("restored", false).unwrap_err();
    assert!(
        matches!(refused, Error::Damaged { count: 1, .. }),
        "{refused}"
    );
    let target = data.directory.path().join("restored");
    assert!(!target.join("visage.db").exists());
    // It may be continued where it was refused.
    let restored = data.restore("restored", true).unwrap();
    assert_eq!(restored.damaged.len(), 1);
    assert!(!target.join("datasets/faces-1/30.jpg").exists());
    assert!(target.join("visage.db").exists());
}

#[tokio::test]
async fn old_backups_are_removed_with_their_content() {
    let data = Data::create().await;
    let first = data.back_up(None).await.unwrap();
    let removed = data
        .artifacts
        .delete(&digest_of(&data).await)
        .await
        .unwrap();
    assert_eq!(removed, WEIGHTS.len() as u64);
    data.store
        .update("a", |training: &mut pb::Training| {
            training.set_state(pb::TrainingState::Cancelled);
            training.set_stop_reason(pb::StopReason::UserStop);
            Ok::<_, crate::store::Error>(Change::default())
        })
        .await
        .unwrap();
    data.store.delete_training("a").await.unwrap();
    let second = data.back_up(Some(1)).await.unwrap();
    let first = first
        .path
        .file_name()
        .unwrap()
        .to_string_lossy()
        .into_owned();
    assert_eq!(second.removed_backups, [first]);
    assert_eq!(second.damaged, []);
    assert_eq!(content::stored(&data.root()).unwrap().len(), 3);
    assert_eq!(data.verify().await, [""; 0]);
}

async fn digest_of(data: &Data) -> String {
    let digests = data.store.referenced_digests().await.unwrap();
    digests.into_iter().next().unwrap()
}

#[tokio::test]
async fn a_killed_backup_leaves_nothing_that_counts() {
    let data = Data::create().await;
    let partial = data.root().join("backups/.partial-1");
    fs::create_dir_all(&partial).unwrap();
    fs::write(partial.join("visage.db"), b"half").unwrap();
    let incoming = data.root().join("content/incoming");
    fs::create_dir_all(&incoming).unwrap();
    fs::write(incoming.join("1"), b"half").unwrap();
    data.back_up(None).await.unwrap();
    assert!(!partial.exists());
    assert_eq!(fs::read_dir(incoming).unwrap().count(), 0);
    assert_eq!(data.verify().await, [""; 0]);
}

#[tokio::test]
async fn a_backup_in_the_data_directory_is_refused() {
    let data = Data::create().await;
    let options = Options {
        data_dir: data.data_dir(),
        to: data.data_dir().join("backups"),
        keep: None,
    };
    let refused = Box::pin(create(&options, &mut |_, _| {}))
        .await
        .unwrap_err();
    assert!(matches!(refused, Error::Inside { .. }), "{refused}");
}
