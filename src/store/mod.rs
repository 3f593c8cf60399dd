//! Database of trainings and their events, checkpoints, datasets, model versions and aliases, in
//! one SQLite file.
//!
//! # Guarantees
//!
//! - **Durable.** When a call that writes has returned, the data survive a crash of the process and
//!   a power loss (WAL with `synchronous = FULL`). A reader may therefore send an event to a
//!   client.
//! - **Atomic.** Each call writes in one transaction: a state never changes without its event, and
//!   a model version never appears without its event.
//! - **Ordered.** The events of a training are numbered densely from 1. All events are ordered by a
//!   cursor that only increases and is never reused, even after a training was deleted.
//! - **Uninterrupted.** A caller that stops waiting (a disconnected client) does not interrupt a
//!   write: it completes, and followers are woken.
//! - **Checked.** A file that is damaged, foreign, or written by a newer version is refused before
//!   any change, and two servers never share a data directory.
//!
//! # Following without gaps and repeats
//!
//! Read the events to the head, call [`Store::subscribe`], read again after the last sequence, then
//! wait for the receiver to change before each further read. The channel carries no events, it only
//! wakes: a slow reader loses nothing and delays nobody.
//!
//! # Rows
//!
//! Each row holds the protobuf message of the public API, beside the few columns that queries
//! filter and order by, so a new field of a message needs no migration: the rules of protobuf
//! define how older and newer binaries handle it. Values that change without a write to the row are
//! computed when it is read: the queue position of a training, the resume token of an event, the
//! aliases of a version, the best checkpoint. Migrations in `migrations/` are applied when the
//! store is opened; a released one is never edited.
//!
//! # Layout
//!
//! - `open`: [`Store`], opening and closing it. `verify`, `file_system`, `identity`: checks before
//!   that. `lock`: one server for each data directory. `migration_copy`: the database before a
//!   migration. `backfill`: columns of older rows after it.
//! - `snapshot`: reading a database without being its server.
//! - `transaction`: the transaction of every write.
//! - `trainings`: reading and deleting trainings. `training_insertion`: inserting them. `change`:
//!   changing them.
//! - `page`: pages of a list and tokens of positions.
//! - `events`: appending and reading events.
//! - `checkpoints`: checkpoints and referenced artifacts. `resume_points`: positions at which live
//!   trainings can resume.
//! - `datasets`, `dataset_deletion`: named datasets.
//! - `artifact_checks`: progress of the verification of all artifacts. `retention`: deletion of
//!   what is older than the settings allow.
//! - `versions`, `version_deletion`, `aliases`, `alias_moves`: model versions and the aliases that
//!   point to them. `disk_use`: space that checkpoints and versions use.
//!   `promotion`: the decision whether a new version becomes `live`.
//!
//! All writes use one connection, so they are serialized and need no retry; clients take turns (see
//! `turns`). Readers have their own connections and never wait for a write.

mod alias_moves;
mod aliases;
mod artifact_checks;
mod backfill;
mod change;
mod checkpoints;
mod dataset_deletion;
mod datasets;
mod disk_use;
mod error;
mod events;
mod file_system;
mod identity;
mod labels;
mod lock;
mod migration_copy;
mod open;
mod page;
mod promotion;
mod resume_points;
mod retention;
mod snapshot;
mod training_insertion;
mod trainings;
mod transaction;
mod turns;
mod verify;
mod version_deletion;
mod versions;

#[cfg(test)]
mod tests;

pub(crate) use change::{Change, Rewind};
pub(crate) use datasets::{DatasetLimits, NumberedDataset};
pub(crate) use error::Error;
pub(crate) use events::Kind;
pub(crate) use identity::Identity;
pub(crate) use open::Store;
pub(crate) use page::{MAX_PAGE_BYTES, Page, Room, encode_token, parse_token};
pub(crate) use promotion::{MIN_COMPARED_IMAGES, Promotion};
pub(crate) use snapshot::{Reference, References, Snapshot, database_path, place_database};
pub(crate) use training_insertion::{Inserted, RequestId, TrainingLimits};
pub(crate) use trainings::{TrainingFilter, is_final};
pub(crate) use transaction::run_detached;
pub(crate) use turns::Lane;
pub(crate) use version_deletion::DeletedVersion;
pub(crate) use versions::Publish;
