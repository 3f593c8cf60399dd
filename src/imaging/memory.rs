//! A limit on the memory of images that are decoded at the same time.
//!
//! A file of some hundred kilobytes can have fifty million pixels. Small images pass without a
//! reservation; large ones wait until their memory is available, and one that needs more than the
//! limit is decoded while no other large one is.

use std::sync::{Condvar, Mutex, PoisonError};

/// The memory for all large images of the process.
const LIMIT: u64 = 384 << 20;
/// Smaller images need no reservation: with one decoding thread per core they take less than the
/// model.
const SMALL: u64 = 16 << 20;

static DECODING: Memory = Memory::new(LIMIT);

/// Memory that is reserved until this is dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    memory: &'static Memory,
    bytes: u64,
}

/// Waits for memory. Must not be called on an async thread, or by a thread that has a reservation.
pub(super) fn reserve(bytes: u64) -> Reservation {
    DECODING.reserve(bytes)
}

#[derive(Debug)]
struct Memory {
    used: Mutex<u64>,
    released: Condvar,
    limit: u64,
}

impl Memory {
    const fn new(limit: u64) -> Self {
        Self {
            used: Mutex::new(0),
            released: Condvar::new(),
            limit,
        }
    }

    fn reserve(&'static self, bytes: u64) -> Reservation {
        let bytes = match bytes {
            0..SMALL => 0,
            larger => larger.min(self.limit),
        };
        if bytes > 0 {
            let used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
            let mut used = self
                .released
                .wait_while(used, |used| *used + bytes > self.limit)
                .unwrap_or_else(PoisonError::into_inner);
            *used += bytes;
        }
        Reservation {
            memory: self,
            bytes,
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.bytes > 0 {
            let used = &self.memory.used;
            *used.lock().unwrap_or_else(PoisonError::into_inner) -= self.bytes;
            self.memory.released.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread, time::Duration};

    use super::*;

    #[test]
    fn large_images_wait_for_memory_and_small_ones_do_not() {
        static MEMORY: Memory = Memory::new(100 << 20);
        let first = MEMORY.reserve(60 << 20);
        let _small = MEMORY.reserve(SMALL - 1);
        let (sender, receiver) = mpsc::channel();
        let waiting = thread::spawn(move || {
            let larger_than_the_limit = MEMORY.reserve(1 << 40);
            sender.send(larger_than_the_limit.bytes).unwrap();
        });
        let early = receiver.recv_timeout(Duration::from_millis(50));
        assert!(
            early.is_err(),
            "reserved {early:?} while 60 MiB were in use"
        );
        drop(first);
        assert_eq!(receiver.recv().unwrap(), 100 << 20);
        waiting.join().unwrap();
        assert_eq!(*MEMORY.used.lock().unwrap(), 0);
    }
}
