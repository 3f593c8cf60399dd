//! Deletion of trainings, events and request ids that are older than the settings allow.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::{
    names::id_of,
    proto::v1::TrainingState,
    store::{self, Store, TrainingFilter},
    telemetry::logging::chain,
    training::supervisor::{self, Supervisor},
};

use super::now;

/// Time between two passes.
const INTERVAL: Duration = Duration::from_secs(3600);
/// Trainings read at a time.
const PAGE: u32 = 100;

/// Ages at which rows are deleted; zero keeps them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Expiry {
    pub(crate) trainings: Duration,
    pub(crate) events: Duration,
    pub(crate) alias_events: Duration,
    pub(crate) request_ids: Duration,
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error(transparent)]
    Supervisor(#[from] supervisor::Error),
}

/// Deletes now and every hour until the token is cancelled.
pub(crate) async fn run(
    store: Store,
    supervisor: Supervisor,
    expiry: Expiry,
    shutdown: CancellationToken,
) {
    let pass = async {
        loop {
            if let Err(error) = Box::pin(expire(&store, &supervisor, expiry)).await {
                tracing::warn!(error = %chain(&error), "failed to delete expired data");
            }
            tokio::time::sleep(INTERVAL).await;
        }
    };
    tokio::select! {
        () = pass => {}
        () = shutdown.cancelled() => {}
    }
}

async fn expire(store: &Store, supervisor: &Supervisor, expiry: Expiry) -> Result<(), Error> {
    if let Some(before) = before(expiry.request_ids) {
        while store.expire_request_ids(before).await? {}
    }
    if let Some(before) = before(expiry.alias_events) {
        while store.expire_alias_events(before).await? {}
    }
    if let Some(before) = before(expiry.trainings) {
        for id in ended(store, before).await? {
            match supervisor.delete(&id).await {
                Ok(()) => tracing::info!(training = id, "deleted an expired training"),
                // A client deleted it.
                Err(supervisor::Error::Store(store::Error::NotFound { .. })) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    if let Some(before) = before(expiry.events) {
        for id in ended(store, before).await? {
            while store.expire_events(&id).await? {}
        }
    }
    Ok(())
}

/// The time before which rows expire, in seconds since the Unix epoch.
fn before(age: Duration) -> Option<i64> {
    (!age.is_zero()).then(|| now().saturating_sub_unsigned(age.as_secs()))
}

/// Ids of the trainings that ended before a time.
async fn ended(store: &Store, before: i64) -> Result<Vec<String>, store::Error> {
    let filter = TrainingFilter {
        states: vec![
            TrainingState::Succeeded,
            TrainingState::Failed,
            TrainingState::Cancelled,
        ],
        ..Default::default()
    };
    let mut found = Vec::new();
    let mut position = None;
    loop {
        let page = store.list_trainings(&filter, position, PAGE).await?;
        let old = page.items.iter().filter(|training| {
            let ended = training.end_time.as_ref();
            ended.is_some_and(|time| time.seconds < before)
        });
        found.extend(old.map(|training| id_of(&training.name).to_owned()));
        match page.next {
            Some(next) => position = Some(next),
            None => return Ok(found),
        }
    }
}
