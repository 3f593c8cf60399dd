//! Changes of a training, with their events, checkpoints and model version.
//!
//! A closure that runs inside the transaction decides a change from the current training: if a stop
//! and a finish race, the second one sees the result of the first, and nothing is overwritten with
//! stale data.

use std::{collections::BTreeSet, time::SystemTime};

use prost::Message;
use prost_types::Timestamp;

use crate::{
    names::id_of,
    proto::{v1 as pb, worker_v1::ResumePoint},
};

use super::{
    Error, Store, checkpoints,
    events::{Kind, Log},
    resume_points,
    trainings::{find, is_final, state_changed},
    transaction::{WriteTx, run_detached},
    versions::{self, Publish},
};

/// Data to write together with a training's message. The default writes the message alone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Change {
    /// Events to append, in order: `DatasetScanned`, `EpochCompleted`, `MetricsRewound`,
    /// `CheckpointSaved`, `SpecChanged` or `TestEvaluated`.
    ///
    /// `CheckpointSaved` also stores the checkpoint; its `name` and, if unset, `create_time` are
    /// filled in, and a `best` one clears the flag of the others.
    pub events: Vec<Kind>,
    /// Epochs whose checkpoints are deleted to save disk space. Epochs without one are skipped.
    pub drop_checkpoints: Vec<u32>,
    /// A model version to create.
    pub publish: Option<Publish>,
    /// The new resume point. It is deleted when the training ends.
    pub resume_point: Option<ResumePoint>,
    /// Later epochs to delete, because they are repeated.
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

/// Position to which a training returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rewind {
    /// The start: all checkpoints and the resume point are deleted.
    ToStart,
    /// The end of an epoch, or the start: checkpoints of later epochs are deleted.
    After {
        /// Epochs that are kept.
        epochs: u32,
        /// Best kept epoch; 0 without one.
        best_epoch: u32,
    },
}

/// Result of a change.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct UpdateResult {
    /// The training after the change.
    pub training: pb::Training,
    /// Appended events, in order.
    pub events: Vec<pb::TrainingEvent>,
    /// The created model version.
    pub version: Option<pb::ModelVersion>,
    /// SHA-256 (hex) of the artifacts that are no longer referenced.
    pub unreferenced: Vec<String>,
}

impl Store {
    /// Changes a training in one transaction: `decide` edits the current training and returns
    /// further data to write.
    ///
    /// Changes to `name`, `owner`, `create_time`, `update_time`, `last_sequence`, `queue_position`,
    /// `checkpoint_bytes`, `model_version` and `promotion` are ignored. After the given events the
    /// store appends `ModelVersionCreated` if a version is created, and last `StateChanged`, with
    /// the training's `stop_reason` and `failure`, if `decide` changed the state. Without a change
    /// nothing is written.
    ///
    /// `decide` blocks all other writes and must only compute. Its error rolls everything back and
    /// is returned unchanged.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Terminal`] if an ended training would change its state or get
    /// events or a version; [`Error::NotAppendable`].
    pub(crate) async fn update<F, E>(&self, id: &str, decide: F) -> Result<UpdateResult, E>
    where
        F: FnOnce(&mut pb::Training) -> Result<Change, E> + Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let (inner, id) = (self.inner.clone(), id.to_owned());
        run_detached(Box::pin(async move {
            let mut write = WriteTx::start(inner).await?;
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
    write: &mut WriteTx,
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
    restore_own_fields(before, &mut after);
    let moved = after.state != before.state;
    let adds_events = moved || publish.is_some() || !kinds.is_empty();
    if is_final(before.state()) && adds_events {
        return Err(Error::Terminal {
            name: before.name.clone(),
            state: before.state(),
        });
    }
    kinds.iter().try_for_each(check_appendable)?;

    let now = Timestamp::from(SystemTime::now());
    let mut version = None;
    if let Some(publish) = publish {
        let (made, promotion) = versions::publish(write, publish, now).await?;
        after.model_version.clone_from(&made.name);
        kinds.push(Kind::ModelVersionCreated(pb::ModelVersionCreated {
            model_version: made.name.clone(),
            promoted: promotion.promoted,
            promotion: Some(promotion.clone()),
        }));
        after.promotion = Some(promotion);
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
                resume_points::delete(write, number).await?;
                (0, 0)
            }
            Rewind::After { epochs, best_epoch } => (epochs, best_epoch),
        };
        released.append(&mut checkpoints::rewind(write, number, epochs, best_epoch).await?);
    }
    for epoch in drop_checkpoints {
        released.append(&mut checkpoints::delete(write, number, epoch).await?);
    }
    after.last_sequence = log.sequence.cast_unsigned();
    if is_final(after.state()) {
        resume_points::delete(write, number).await?;
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

/// Restores the fields that only the store writes.
fn restore_own_fields(before: &pb::Training, after: &mut pb::Training) {
    after.name.clone_from(&before.name);
    after.owner.clone_from(&before.owner);
    after.create_time = before.create_time;
    after.update_time = before.update_time;
    after.last_sequence = before.last_sequence;
    after.queue_position = before.queue_position;
    after.checkpoint_bytes = before.checkpoint_bytes;
    after.model_version.clone_from(&before.model_version);
    after.promotion.clone_from(&before.promotion);
}

fn check_appendable(kind: &Kind) -> Result<(), Error> {
    let kind = match kind {
        Kind::DatasetScanned(_)
        | Kind::EpochCompleted(_)
        | Kind::InitialValidated(_)
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
