//! State of the disk, which the supervisor's tasks share.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

use crate::disk::DiskLow;

/// Wait before a training that met a full disk is tried again although no space was freed: a quota
/// may be full that the free space does not show.
const FULL_PAUSE: Duration = Duration::from_secs(60);

/// Reasons of a training that is paused until there is room.
pub(super) const DISK_LOW: &str = "DISK_LOW";
pub(super) const DISK_FULL: &str = "DISK_FULL";

/// State of the disk: low space, and trainings that wait for space.
pub(super) struct DiskState {
    low: watch::Sender<Option<DiskLow>>,
    /// True if trainings may be paused for lack of space.
    has_suspended: AtomicBool,
    /// The last write that met a full disk.
    full: Mutex<Option<Full>>,
}

struct Full {
    at: Instant,
    /// Free bytes at that time.
    free: u64,
}

impl Default for DiskState {
    fn default() -> Self {
        Self {
            low: watch::Sender::default(),
            // An earlier server may have paused some.
            has_suspended: AtomicBool::new(true),
            full: Mutex::default(),
        }
    }
}

impl DiskState {
    /// Changes when the space falls below the minimum, and when there is room again.
    pub(super) fn subscribe(&self) -> watch::Receiver<Option<DiskLow>> {
        self.low.subscribe()
    }

    /// Publishes whether the space is low, if that changes. `find` gets the current state, and
    /// returns the new one.
    pub(super) fn publish(&self, find: impl FnOnce(Option<DiskLow>) -> Option<DiskLow>) {
        self.low.send_if_modified(|low| {
            let found = find(*low);
            let is_changed = found.is_some() != low.is_some();
            if is_changed && let Some(found) = &found {
                tracing::warn!(%found, "the running training is paused until there is room");
            }
            *low = found;
            is_changed
        });
    }

    pub(super) fn has_suspended(&self) -> bool {
        self.has_suspended.load(Ordering::Acquire)
    }

    pub(super) fn set_suspended(&self, has_suspended: bool) {
        self.has_suspended.store(has_suspended, Ordering::Release);
    }

    /// Records a write that met a full disk.
    pub(super) fn record_full(&self, free: u64) {
        let mut full = self.full.lock().unwrap_or_else(PoisonError::into_inner);
        *full = Some(Full {
            at: Instant::now(),
            free,
        });
    }

    /// True soon after a write that met a full disk, unless space was freed since.
    pub(super) fn is_blocked(&self, free: u64) -> bool {
        let full = self.full.lock().unwrap_or_else(PoisonError::into_inner);
        full.as_ref()
            .is_some_and(|full| free <= full.free && full.at.elapsed() < FULL_PAUSE)
    }
}
