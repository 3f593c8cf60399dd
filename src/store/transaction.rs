//! Transactions that write.

use std::sync::Arc;

use sqlx::{Sqlite, SqliteConnection, Transaction};

use super::{
    Error,
    open::Inner,
    turns::{Lane, Turn},
};

/// A transaction that writes. Dropping it without a commit rolls it back.
pub(super) struct WriteTx {
    inner: Arc<Inner>,
    transaction: Transaction<'static, Sqlite>,
    /// Released after the transaction.
    _turn: Option<Turn>,
    /// Cursor of the last event appended in it.
    pub(super) appended: Option<i64>,
    /// Number of the last alias event appended in it.
    pub(super) alias_appended: Option<u64>,
    /// Versions inserted less versions deleted.
    pub(super) versions_change: i64,
}

impl WriteTx {
    /// Waits for the turn of the client and for the writing connection, and acquires SQLite's write
    /// lock at once, so that data read in the transaction stay valid.
    pub(super) async fn start(inner: Arc<Inner>) -> Result<Self, Error> {
        let turn = inner.turns.next().await;
        let transaction = inner.writer.begin_with("BEGIN IMMEDIATE").await?;
        Ok(Self {
            inner,
            transaction,
            _turn: turn,
            appended: None,
            alias_appended: None,
            versions_change: 0,
        })
    }

    pub(super) fn connection(&mut self) -> &mut SqliteConnection {
        &mut self.transaction
    }

    /// Makes everything durable, then wakes the followers.
    pub(super) async fn commit(self) -> Result<(), Error> {
        self.transaction.commit().await?;
        if let Some(cursor) = self.appended {
            self.inner.events.send_replace(cursor);
        }
        if let Some(number) = self.alias_appended {
            self.inner.alias_events.send_replace(number);
        }
        if self.versions_change != 0 {
            let versions = &self.inner.versions;
            versions
                .send_modify(|count| *count = count.saturating_add_signed(self.versions_change));
        }
        Ok(())
    }
}

/// Runs a write to completion even if the caller is dropped.
///
/// Otherwise a caller that is dropped between the commit and the wake-up would leave followers
/// asleep despite a new event. The task holds a connection, and [`super::Store::close`] waits for
/// all connections.
pub(crate) async fn run_detached<T, E>(
    work: impl Future<Output = Result<T, E>> + Send + 'static,
) -> Result<T, E>
where
    T: Send + 'static,
    E: From<Error> + Send + 'static,
{
    let task = match Lane::current() {
        Some(lane) => tokio::spawn(lane.scope(work)),
        None => tokio::spawn(work),
    };
    match task.await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(Error::Closed.into()),
    }
}
