//! Behaviour of the store through its public door.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fs_err as fs;
use sqlx::{ConnectOptions, Connection};
use tempfile::TempDir;
use tokio::sync::Barrier;
use tokio::time::timeout;

use super::{change::UpdateResult, events::training_head, *};
use crate::names::{CheckpointRef, VersionRef};
use crate::proto::v1::{self as pb, TrainingState};
use crate::proto::worker_v1::Comparison;

impl Store {
    /// The sequence of a training's latest event.
    async fn head(&self, id: &str) -> Result<u64, Error> {
        let mut read = self.read().await?;
        let (_, head) = training_head(&mut read, id).await?;
        Ok(head.cast_unsigned())
    }

    /// The aliases of a model with their versions.
    async fn aliases(&self, model: &str) -> Result<BTreeMap<String, u64>, Error> {
        let aliases = sqlx::query_as("SELECT alias, number FROM aliases WHERE model = ?")
            .bind(model)
            .fetch_all(&mut *self.read().await?)
            .await?;
        let aliases: Vec<(String, i64)> = aliases;
        Ok(aliases
            .into_iter()
            .map(|(alias, number)| (alias, number.cast_unsigned()))
            .collect())
    }
}

// Changes of trainings.
mod changes;
// Deletion of versions, and disk space.
mod deletion;
// Events of followers.
mod events;
// Files of the store.
mod files;
// Databases and the files beside them.
mod identity;
// Model versions and aliases.
mod models;
// Pages of lists whose items are large.
mod pages;
// Deletion of old rows.
mod retention;
// Ids that are free again.
mod replacement;
// Trainings without their changes.
mod trainings;

/// Far longer than any wait below takes; reached only when something hangs.
const PATIENCE: Duration = Duration::from_secs(30);

async fn open() -> (TempDir, Store) {
    let directory = TempDir::new().unwrap();
    let store = Store::open(directory.path()).await.unwrap();
    (directory, store)
}

fn named(id: &str) -> pb::Training {
    pb::Training {
        name: format!("trainings/{id}"),
        ..Default::default()
    }
}

async fn insert(store: &Store, id: &str) -> pb::Training {
    match store.insert_training(named(id), None, 1000).await.unwrap() {
        Inserted::New(training) => training,
        Inserted::Replaced(_) | Inserted::Existing(_) => panic!("{id} existed"),
    }
}

fn in_states(states: &[TrainingState]) -> TrainingFilter {
    TrainingFilter {
        states: states.to_vec(),
        ..Default::default()
    }
}

fn epoch(epoch: u32) -> Kind {
    Kind::EpochCompleted(pb::EpochMetrics {
        epoch,
        ..Default::default()
    })
}

fn saved(epoch: u32, best: bool, sha256: &str) -> Kind {
    Kind::CheckpointSaved(pb::Checkpoint {
        epoch,
        best,
        files: vec![pb::CheckpointFile {
            name: "model.safetensors".to_owned(),
            size_bytes: 1,
            sha256: sha256.to_owned(),
        }],
        ..Default::default()
    })
}

fn events(events: Vec<Kind>) -> Change {
    Change {
        events,
        ..Default::default()
    }
}

async fn append(store: &Store, id: &str, kinds: Vec<Kind>) -> UpdateResult {
    let decide = move |_: &mut pb::Training| Ok::<_, Error>(events(kinds));
    store.update(id, decide).await.unwrap()
}

async fn become_state(
    store: &Store,
    id: &str,
    state: TrainingState,
) -> Result<UpdateResult, Error> {
    store
        .update(id, move |training| {
            training.set_state(state);
            Ok(Change::default())
        })
        .await
}

/// Ends a training whose version has this validation loss.
async fn publish(
    store: &Store,
    id: &str,
    promote: Promotion,
    comparison: Option<Comparison>,
) -> UpdateResult {
    store
        .update(id, move |training| {
            training.set_state(TrainingState::Succeeded);
            training.set_stop_reason(pb::StopReason::MaxEpochs);
            Ok::<_, Error>(Change {
                events: vec![epoch(1)],
                publish: Some(Publish {
                    model: "age".to_owned(),
                    version: pb::ModelVersion::default(),
                    promote,
                    comparison,
                }),
                ..Default::default()
            })
        })
        .await
        .unwrap()
}

fn sequences(events: &[pb::TrainingEvent]) -> Vec<u64> {
    events.iter().map(|event| event.sequence).collect()
}

/// Names and contents of all files of a directory but the lock.
fn contents(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_name() != "visage.lock")
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, fs::read(entry.path()).unwrap())
        })
        .collect()
}

/// Copies the database as it lies on disk, as after a crash at this moment.
fn crash_copy(from: &Path) -> TempDir {
    let copy = TempDir::new().unwrap();
    for file in ["visage.db", "visage.db-wal"] {
        fs::copy(from.join(file), copy.path().join(file)).unwrap();
    }
    copy
}
