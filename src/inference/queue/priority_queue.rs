//! The order in which images are computed.
//!
//! Interactive images come before batch images, and within each class clients take turns, one image
//! at a time: a hundred queued images of one client delay another client's image by one batch, not
//! by a hundred images.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use super::QueueEntry;
use crate::inference::{Client, Priority};

/// Rows of a batch without interactive images. Interactive images that arrive meanwhile wait for no
/// more than these, which take a third of the time of the largest batch at nine tenths of its
/// speed.
pub(super) const BATCH_PRIORITY_ROWS: usize = 8;
/// A batch image that has waited this long comes before all others.
pub(super) const MAX_WAIT: Duration = Duration::from_secs(2);

#[derive(Default)]
pub(crate) struct PriorityQueue {
    pub(super) interactive: RoundRobin,
    batch: RoundRobin,
}

impl PriorityQueue {
    pub(crate) fn is_empty(&self) -> bool {
        self.interactive.ring.is_empty() && self.batch.ring.is_empty()
    }

    pub(crate) fn push(&mut self, entry: QueueEntry) {
        match entry.job.priority {
            Priority::Interactive => self.interactive.push(entry),
            Priority::Batch => self.batch.push(entry),
        }
    }

    /// Takes the next batch, for one version and with at most `max_rows` rows: interactive images,
    /// then batch images as far as there is room. Empty only if no queued image is needed any more.
    pub(crate) fn next_batch(&mut self, max_rows: usize) -> Vec<QueueEntry> {
        let mut batch = Batch::default();
        if self.batch.longest_wait() > MAX_WAIT {
            self.batch
                .take(&mut batch, BATCH_PRIORITY_ROWS.min(max_rows));
        }
        self.interactive.take(&mut batch, max_rows);
        let room = if batch.entries.is_empty() {
            BATCH_PRIORITY_ROWS.min(max_rows)
        } else {
            max_rows
        };
        self.batch.take(&mut batch, room);
        batch.entries
    }
}

/// A batch that is being filled.
#[derive(Default)]
struct Batch {
    entries: Vec<QueueEntry>,
    rows: usize,
}

impl Batch {
    /// Returns true if the entry has the batch's weights and input specification and there is room
    /// for it. The first entry always fits.
    fn fits(&self, entry: &QueueEntry, max_rows: usize) -> bool {
        self.entries.first().is_none_or(|first| {
            first.job.model.sha256 == entry.job.model.sha256
                && first.job.model.input == entry.job.model.input
                && self.rows + entry.rows() <= max_rows
        })
    }
}

/// A queue of images for each client.
#[derive(Default)]
pub(super) struct RoundRobin {
    /// Clients without images are removed.
    pub(super) of_client: HashMap<Client, VecDeque<QueueEntry>>,
    /// Clients in the order of their turns.
    ring: VecDeque<Client>,
}

impl RoundRobin {
    fn push(&mut self, entry: QueueEntry) {
        match self.of_client.get_mut(&entry.job.client) {
            Some(queue) => queue.push_back(entry),
            None => {
                self.ring.push_back(entry.job.client.clone());
                self.of_client
                    .insert(entry.job.client.clone(), VecDeque::from([entry]));
            }
        }
    }

    fn longest_wait(&self) -> Duration {
        let firsts = self.of_client.values().filter_map(VecDeque::front);
        let waits = firsts.map(|entry| entry.enqueued.elapsed());
        waits.max().unwrap_or_default()
    }

    /// Moves one image of each client in turn until the batch has `max_rows` rows, and drops images
    /// that are no longer needed. A client whose image does not fit keeps its turn for the next
    /// batch.
    fn take(&mut self, batch: &mut Batch, max_rows: usize) {
        let mut passed = Vec::new();
        while batch.rows < max_rows
            && let Some(client) = self.ring.pop_front()
        {
            let Some(queue) = self.of_client.get_mut(&client) else {
                continue;
            };
            let Some(entry) = queue.pop_front_if(|entry| batch.fits(entry, max_rows)) else {
                passed.push(client);
                continue;
            };
            if let Some(entry) = entry.if_needed() {
                batch.rows += entry.rows();
                batch.entries.push(entry);
            }
            if queue.is_empty() {
                self.of_client.remove(&client);
            } else {
                self.ring.push_back(client);
            }
        }
        for client in passed.into_iter().rev() {
            self.ring.push_front(client);
        }
    }
}
