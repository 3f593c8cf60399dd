//! Verification of all artifacts in the background.
//!
//! Bits of a disk decay unnoticed, and a checkpoint may be read years after it was written. Each
//! artifact is read once in the interval. The next one is due when its share of the interval has
//! passed since the last one, also over restarts. Damaged artifacts are verified again every hour,
//! because storing the same bytes repairs them.

use std::time::Duration;

use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    artifacts::{self, Artifacts},
    names::{DEFAULT_MODEL, LIVE},
    store::{self, Store},
    telemetry::{logging::chain, metrics},
};

use super::now;

/// Bytes per second, a small part of what any disk reads.
const RATE: u64 = 16 << 20;
/// Interval in which damaged artifacts are verified again, and the state is read.
const REPEAT: Duration = Duration::from_secs(3600);
/// Pause after a failure of the database or of a disk.
const RETRY: Duration = Duration::from_secs(60);

pub(crate) struct Scrub {
    pub(crate) store: Store,
    pub(crate) artifacts: Artifacts,
    /// Time of a pass over all artifacts; zero disables the verification.
    pub(crate) interval: Duration,
    /// True if a file of the live version is damaged.
    pub(crate) is_live_damaged: watch::Sender<bool>,
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error(transparent)]
    Artifacts(#[from] artifacts::Error),
}

/// Verifies artifacts until the token is cancelled.
pub(crate) async fn run(scrub: Scrub, shutdown: CancellationToken) {
    if scrub.interval.is_zero() {
        return;
    }
    let mut moved = scrub.store.subscribe_aliases();
    let mut next = Instant::now();
    loop {
        moved.mark_unchanged();
        let done = match Instant::now() >= next {
            true => scrub.step().await,
            // An alias was moved.
            false => scrub.publish_live().await.map(|()| Duration::ZERO),
        };
        match done {
            Ok(pause) => next = next.max(Instant::now() + pause),
            Err(Error::Store(store::Error::Closed)) => return,
            Err(error) => {
                tracing::warn!(error = %chain(&error), "failed to verify an artifact");
                next = Instant::now() + RETRY;
            }
        }
        tokio::select! {
            () = tokio::time::sleep_until(next) => {}
            changed = moved.changed() => if changed.is_err() { return },
            () = shutdown.cancelled() => return,
        }
    }
}

impl Scrub {
    /// Verifies the next artifact if it is due, and returns the time until the next step.
    async fn step(&self) -> Result<Duration, Error> {
        let count = self.store.count_artifacts().await?;
        let state = self.store.check_state().await?;
        let share = self.interval.as_secs() / count.max(1);
        let due = state.last_check.saturating_add_unsigned(share);
        // A clock that was set back must not stop the verification.
        let is_due = now() >= due || now() < state.last_check;
        if count > 0 && is_due {
            match self.store.next_artifact(&state.position).await? {
                Some(sha256) => {
                    let is_damaged = self.is_damaged(&sha256).await?;
                    self.store.record_check(&sha256, is_damaged, now()).await?;
                }
                None => self.store.finish_check_pass(now()).await?,
            }
        }
        let damaged = self.store.damaged_artifacts().await?;
        let last_pass = self.store.check_state().await?.last_pass;
        metrics::artifacts_verified(damaged.len() as u64, last_pass);
        self.publish_live().await?;
        if is_due {
            return Ok(Duration::from_secs(share.clamp(1, REPEAT.as_secs())));
        }
        for sha256 in damaged {
            let is_damaged = self.is_damaged(&sha256).await?;
            self.store
                .record_repeated_check(&sha256, is_damaged)
                .await?;
        }
        let left = u64::try_from(due - now()).unwrap_or(0);
        Ok(Duration::from_secs(left.clamp(1, REPEAT.as_secs())))
    }

    /// Publishes whether a file of the live version is damaged.
    async fn publish_live(&self) -> Result<(), Error> {
        let live = self.store.alias_is_damaged(DEFAULT_MODEL, LIVE).await?;
        self.is_live_damaged.send_replace(live);
        Ok(())
    }

    /// Verifies an artifact, and logs damage.
    async fn is_damaged(&self, sha256: &str) -> Result<bool, Error> {
        if self.artifacts.check(sha256, RATE).await? {
            return Ok(false);
        }
        let owners = self.store.artifact_owners(sha256).await?;
        // It may have been deleted meanwhile.
        if owners.is_empty() {
            return Ok(false);
        }
        tracing::warn!(
            sha256,
            owners = owners.join(", "),
            "an artifact is damaged or missing; restore it from a backup"
        );
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use fs_err as fs;
    use tokio_util::bytes::Bytes;

    use super::*;
    use crate::{
        proto::v1::{self as pb, training_event::Kind},
        store::Change,
    };

    /// Stores artifacts as checkpoints of a training, and returns their digests.
    async fn stored(scrub: &Scrub, contents: &[&'static [u8]]) -> Vec<String> {
        let training = pb::Training {
            name: "trainings/a".to_owned(),
            ..Default::default()
        };
        let inserted = scrub.store.insert_training(training, None, 10).await;
        inserted.unwrap();
        let mut digests = Vec::new();
        for (index, content) in contents.iter().enumerate() {
            let bytes = Bytes::from_static(content);
            let digest = scrub.artifacts.put_bytes(bytes).await.unwrap();
            digests.push(digest.sha256.clone());
            let saved = Kind::CheckpointSaved(pb::Checkpoint {
                epoch: u32::try_from(index).unwrap() + 1,
                files: vec![pb::CheckpointFile {
                    name: "model.safetensors".to_owned(),
                    size_bytes: digest.size,
                    sha256: digest.sha256,
                }],
                ..Default::default()
            });
            let decide = move |_: &mut pb::Training| {
                Ok::<_, store::Error>(Change {
                    events: vec![saved],
                    ..Default::default()
                })
            };
            scrub.store.update("a", decide).await.unwrap();
        }
        digests.sort();
        digests
    }

    async fn scrub(directory: &std::path::Path, interval: Duration) -> Scrub {
        Scrub {
            store: Store::open(directory).await.unwrap(),
            artifacts: Artifacts::local(&directory.join("artifacts"))
                .await
                .unwrap(),
            interval,
            is_live_damaged: watch::Sender::new(false),
        }
    }

    #[tokio::test]
    async fn every_artifact_is_verified_and_damage_is_found_and_forgotten_after_a_repair() {
        let directory = tempfile::tempdir().unwrap();
        // Everything is due at once.
        let mut scrub = scrub(directory.path(), Duration::from_secs(1)).await;
        let digests = stored(&scrub, &[b"one", b"two", b"three"]).await;
        let damaged = scrub.artifacts.local_file(&digests[1]).await.unwrap();
        let sound = fs::read(&damaged).unwrap();
        fs::write(&damaged, b"TWO").unwrap();
        for digest in &digests {
            scrub.step().await.unwrap();
            assert_eq!(&scrub.store.check_state().await.unwrap().position, digest);
        }
        let found = scrub.store.damaged_artifacts().await.unwrap();
        assert_eq!(found, [digests[1].clone()]);
        scrub.step().await.unwrap();
        let state = scrub.store.check_state().await.unwrap();
        assert_eq!(state.position, "");
        assert!(state.last_pass > 0);

        // Nothing is due, so the damaged one is verified again.
        scrub.interval = Duration::from_secs(1_000_000);
        scrub.step().await.unwrap();
        assert_eq!(scrub.store.damaged_artifacts().await.unwrap(), found);
        fs::write(&damaged, &sound).unwrap();
        scrub.step().await.unwrap();
        assert_eq!(scrub.store.damaged_artifacts().await.unwrap(), [""; 0]);
        assert_eq!(scrub.store.check_state().await.unwrap().position, "");
    }

    #[tokio::test]
    async fn verification_continues_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let first = scrub(directory.path(), Duration::from_secs(1)).await;
        let digests = stored(&first, &[b"one", b"two"]).await;
        first.step().await.unwrap();
        first.store.close().await.unwrap();
        let next = scrub(directory.path(), Duration::from_secs(1)).await;
        next.step().await.unwrap();
        let position = next.store.check_state().await.unwrap().position;
        assert_eq!(position, digests[1]);
        // A missing file is damage too.
        let path = next.artifacts.local_file(&digests[0]).await.unwrap();
        fs::remove_file(path).unwrap();
        next.step().await.unwrap();
        next.step().await.unwrap();
        let found = next.store.damaged_artifacts().await.unwrap();
        assert_eq!(found, [digests[0].clone()]);
    }
}
