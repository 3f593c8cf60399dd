//! Changes of a training, with the events, checkpoints and model version that belong to them.
//!
//! A change is decided by a closure that runs inside the transaction and sees the training as it is: of a stop and a finish that race, the
//! second one sees what the first one did, and nothing is overwritten with what was read earlier.

use std::collections::BTreeSet;
use std::time::SystemTime;

use prost::Message;
use prost_types::Timestamp;

use super::database::{Write, run_detached};
use super::events::{Kind, Log};
use super::trainings::{find, is_final, state_changed};
use super::versions::{self, Publish};
use super::{Error, Store, checkpoints, resume_points};
use crate::names::id_of;
use crate::proto::{v1 as pb, worker_v1::ResumePoint};

/// What is written together with a training's message. The default writes the message alone.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// Events to append, in order: `DatasetScanned`, `EpochCompleted`, `MetricsRewound`, `CheckpointSaved`, `SpecChanged` or `TestEvaluated`.
    ///
    /// `CheckpointSaved` also stores the checkpoint; its `name` and, when unset, `create_time` are filled in, and a `best` one takes
    /// the flag from the others.
    pub events: Vec<Kind>,
    /// Epochs whose checkpoints are forgotten, to save disk. Epochs without one are passed over.
    pub drop_checkpoints: Vec<u32>,
    /// A model version to make.
    pub publish: Option<Publish>,
    /// Where the training can go on from now on. A training that ends forgets it.
    pub resume_point: Option<ResumePoint>,
    /// Later epochs that are forgotten, because they are made again.
    pub rewind: Option<Rewind>,
}

impl From<Kind> for Change {
    fn from(event: Kind) -> Self {
        Change {
            events: vec![event],
            ..Default::default()
        }
    }
}

/// How far a training goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rewind {
    /// To its beginning: all checkpoints are forgotten, and where the training could go on.
    ToStart,
    /// Into the epoch behind these, which may be the first: checkpoints of later ones are forgotten.
    Behind {
        /// Epochs that stay.
        epochs: u32,
        /// The best of those that stay; 0 without one.
        best_epoch: u32,
    },
}

/// What a change did.
#[derive(Clone, Debug, PartialEq)]
pub struct UpdateResult {
    /// The training after it.
    pub training: pb::Training,
    /// The events that were appended, in order.
    pub events: Vec<pb::TrainingEvent>,
    /// The model version that was made.
    pub version: Option<pb::ModelVersion>,
    /// SHA-256 (hex) of the artifacts that nothing uses any more.
    pub unreferenced: Vec<String>,
}

impl Store {
    /// Changes a training: `decide` sees it as it is, edits it and says what else is written; all of it is one transaction.
    ///
    /// The store keeps `name`, `create_time`, `update_time`, `last_sequence`, `queue_position` and `model_version` itself, whatever
    /// `decide` does to them. After the given events it appends `ModelVersionCreated` when a version is made, and last `StateChanged`, with
    /// the training's `stop_reason` and `failure`, when `decide` changed the state. When nothing changes, nothing is written.
    ///
    /// `decide` runs on the way of all writes and must only compute. Its error undoes everything and is returned as it is. Errors of
    /// the store: [`Error::NotFound`]; [`Error::Terminal`] when an ended training would change its state, get events or a version;
    /// [`Error::NotAppendable`].
    pub async fn update<F, E>(&self, id: &str, decide: F) -> Result<UpdateResult, E>
    where
        F: FnOnce(&mut pb::Training) -> Result<Change, E> + Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let (inner, id) = (self.inner.clone(), id.to_owned());
        run_detached(Box::pin(async move {
            let mut write = Write::begin(inner).await?;
            let (number, before) = find(write.connection(), &id)
                .await?
                .ok_or_else(|| Error::no_training(&id))?;
            let mut after = before.clone();
            let change = decide(&mut after)?;
            // A training is large, and the future holds two of them.
            let applied = Box::pin(apply(&mut write, number, &before, after, change)).await?;
            write.commit().await.map_err(E::from)?;
            Ok(applied)
        }))
        .await
    }
}

/// Writes a decided change; see [`Store::update`].
async fn apply(
    write: &mut Write,
    number: i64,
    before: &pb::Training,
    mut after: pb::Training,
    change: Change,
) -> Result<UpdateResult, Error> {
    let Change {
        events: mut kinds,
        drop_checkpoints,
        publish,
        resume_point,
        rewind,
    } = change;
    keep_own_fields(before, &mut after);
    let moved = after.state != before.state;
    let tells = moved || publish.is_some() || !kinds.is_empty();
    if is_final(before.state()) && tells {
        return Err(Error::Terminal {
            name: before.name.clone(),
            state: before.state(),
        });
    }
    kinds.iter().try_for_each(check_appendable)?;

    let now = Timestamp::from(SystemTime::now());
    let mut version = None;
    if let Some(publish) = publish {
        let (made, promoted) = versions::publish(write, publish, now).await?;
        after.model_version.clone_from(&made.name);
        kinds.push(Kind::ModelVersionCreated(pb::ModelVersionCreated {
            model_version: made.name.clone(),
            promoted,
        }));
        version = Some(made);
    }
    if moved {
        kinds.push(state_changed(&after));
    }

    let id = id_of(&before.name);
    let mut log = Log {
        number,
        id,
        sequence: before.last_sequence.cast_signed(),
        attempt: after.attempt,
        now,
    };
    let mut events = Vec::with_capacity(kinds.len());
    let mut released = BTreeSet::new();
    for mut kind in kinds {
        if let Kind::CheckpointSaved(checkpoint) = &mut kind {
            checkpoint.name = format!("{}/checkpoints/{}", before.name, checkpoint.epoch);
            checkpoint.create_time.get_or_insert(now);
            released.append(&mut checkpoints::upsert(write, number, checkpoint).await?);
        }
        events.push(log.append(write, kind).await?);
    }
    if let Some(rewind) = rewind {
        let (epochs, best_epoch) = match rewind {
            Rewind::ToStart => {
                resume_points::forget(write, number).await?;
                (0, 0)
            }
            Rewind::Behind { epochs, best_epoch } => (epochs, best_epoch),
        };
        released.append(&mut checkpoints::rewind(write, number, epochs, best_epoch).await?);
    }
    for epoch in drop_checkpoints {
        released.append(&mut checkpoints::forget(write, number, epoch).await?);
    }
    after.last_sequence = log.sequence.cast_unsigned();
    if is_final(after.state()) {
        resume_points::forget(write, number).await?;
    } else if let Some(point) = resume_point {
        resume_points::upsert(write, number, &point).await?;
    }

    if after != *before {
        after.update_time = Some(now);
        sqlx::query(
            "UPDATE trainings SET state = ?, last_sequence = ?, message = ? WHERE number = ?",
        )
        .bind(after.state)
        .bind(log.sequence)
        .bind(after.encode_to_vec())
        .bind(number)
        .execute(write.connection())
        .await?;
    }
    let training = match find(write.connection(), id).await? {
        Some((_, training)) => training,
        None => return Err(Error::no_training(id)),
    };
    Ok(UpdateResult {
        training,
        events,
        version,
        unreferenced: checkpoints::unreferenced(write.connection(), released).await?,
    })
}

/// Takes back what a decision did to the fields that only the store writes.
fn keep_own_fields(before: &pb::Training, after: &mut pb::Training) {
    after.name.clone_from(&before.name);
    after.create_time = before.create_time;
    after.update_time = before.update_time;
    after.last_sequence = before.last_sequence;
    after.queue_position = before.queue_position;
    after.model_version.clone_from(&before.model_version);
}

fn check_appendable(kind: &Kind) -> Result<(), Error> {
    let kind = match kind {
        Kind::DatasetScanned(_)
        | Kind::EpochCompleted(_)
        | Kind::MetricsRewound(_)
        | Kind::CheckpointSaved(_)
        | Kind::SpecChanged(_)
        | Kind::TestEvaluated(_) => return Ok(()),
        Kind::StateChanged(_) => "state_changed",
        Kind::ModelVersionCreated(_) => "model_version_created",
        Kind::Progress(_) => "progress",
        Kind::Heartbeat(_) => "heartbeat",
    };
    Err(Error::NotAppendable { kind })
}
