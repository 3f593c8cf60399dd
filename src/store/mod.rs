//! What the server remembers: trainings and their events, checkpoints, model versions and aliases, in one SQLite file.
//!
//! # Promises
//!
//! - **Durable.** When a call that writes has returned, what it wrote survives the death of the process and the loss of power (WAL with
//!   `synchronous = FULL`). Whoever reads an event here may therefore show it to a client.
//! - **Whole.** Each call writes in one transaction: a state never changes without its event, and a model version never appears without the
//!   event that tells of it.
//! - **Ordered.** Events of a training are numbered densely from 1. All events together are ordered by a cursor that only grows and is
//!   never given twice, not even after a training was deleted.
//! - **Uninterrupted.** A caller that stops waiting (a client that left) does not tear a write apart: it is finished, and followers are woken.
//! - **Not mistaken.** A file that is damaged, is not ours, or was written by a newer version is refused before anything is changed, and
//!   two servers never share a data directory.
//!
//! # Following without a gap or a repeat
//!
//! Read the events to the head, [`Store::subscribe`], read again after the last sequence seen, then wait for the receiver to change before each
//! further read. The channel carries no events, it is only a wake-up: a slow reader loses nothing and holds nothing up.
//!
//! # What is in the rows
//!
//! Each row keeps the protobuf message of the public API as it is, beside the few columns that queries filter and order by. So a new field of
//! a message needs no migration: protobuf's own rules say what an older and a newer binary do with it. What changes without a write to
//! the row is computed when it is read: a training's place in the queue, an event's resume token, a version's aliases, which checkpoint is
//! best. Migrations under `migrations/` are applied when the store is opened; a shipped one is never edited.
//!
//! # Layout
//!
//! - `database`: [`Store`], opening and closing it, the checks before that, and the transaction that every write goes through.
//! - `lock`: one server for one data directory.
//! - `trainings`: inserting, reading and deleting trainings; `change`: changing them.
//! - `page`: pages of a list, cut by number and by bytes.
//! - `events`: appending and reading events; resume tokens.
//! - `checkpoints`: checkpoints and the artifacts that are in use.
//! - `datasets`: datasets with a name.
//! - `resume_points`: where live trainings can go on.
//! - `versions` and `aliases`: model versions, and who points to them.
//!
//! Every write goes through one connection, so writes are serialised and need no retry; reads have connections of their own and never
//! wait for a write.

mod aliases;
mod change;
mod checkpoints;
mod database;
mod datasets;
mod error;
mod events;
mod lock;
mod page;
mod resume_points;
mod trainings;
mod versions;

#[cfg(test)]
mod tests;

pub use change::{Change, Rewind, UpdateResult};
pub use database::Store;
pub(crate) use database::run_detached;
pub use datasets::NumberedDataset;
pub use error::Error;
pub use events::{Kind, encode_token, parse_token};
pub use page::{MAX_PAGE_BYTES, Page, Room};
pub use trainings::{Inserted, RequestId, is_final};
pub use versions::{Promotion, Publish};
