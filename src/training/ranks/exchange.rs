//! Exchanges between the ranks of a training.

use std::{net::TcpListener, ops::Range};

use tch::Tensor;

use crate::model::slices::values_mut;

use super::{
    c10d::{Group, Place},
    error::Error,
    local::{LocalRanks, RankOptions},
};

/// This process among those of the training. All ranks call the same functions in the same order.
/// With one rank every exchange returns its own input.
#[derive(Debug)]
pub(crate) struct Ranks {
    rank: usize,
    count: usize,
    // Freed before the other processes end, so that both sides close their connections.
    group: Option<Group>,
    _processes: LocalRanks,
    /// Buffers of the sum; allocating tens of megabytes in each step is slow.
    sent: Vec<f32>,
    received: Vec<f32>,
}

impl Ranks {
    /// The only rank.
    pub(crate) fn solo() -> Self {
        Ranks {
            rank: 0,
            count: 1,
            group: None,
            _processes: LocalRanks::default(),
            sent: Vec::new(),
            received: Vec::new(),
        }
    }

    /// Connects to the other ranks; a rank 0 that no launcher started starts them before.
    ///
    /// # Errors
    /// A rank that does not start or does not connect in time.
    pub(crate) fn connect(options: &RankOptions) -> Result<Self, Error> {
        let (rank, count) = (options.rank, options.count);
        let failed = |cause| Error::Start { rank, cause };
        let mut processes = LocalRanks::default();
        let mut port = options.port;
        let listener = if rank > 0 || options.is_hosted {
            None
        } else if options.is_launched {
            Some(TcpListener::bind((options.host.as_str(), port)).map_err(failed)?)
        } else {
            let listener;
            (processes, listener) = LocalRanks::start(options)?;
            port = listener.local_addr().map_err(failed)?.port();
            Some(listener)
        };
        let place = Place {
            rank,
            count,
            host: &options.host,
            port,
            listener,
            is_hosted: options.is_hosted,
            name: &options.group,
            timeout: options.timeout,
        };
        let group = Group::connect(place).map_err(|cause| Error::Connect { rank, count, cause })?;
        Ok(Ranks {
            rank,
            count,
            group: Some(group),
            _processes: processes,
            ..Ranks::solo()
        })
    }

    pub(crate) fn is_first(&self) -> bool {
        self.rank == 0
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Returns the range of this rank's shards.
    pub(crate) fn own(&self, shards: usize) -> Range<usize> {
        let each = shards / self.count;
        self.rank * each..(self.rank + 1) * each
    }

    /// Returns this rank's share of a list of batches, dealt one by one.
    pub(crate) fn share<T>(&self, batches: Vec<T>) -> Vec<T> {
        let batches = batches.into_iter().skip(self.rank);
        batches.step_by(self.count).collect()
    }

    /// Returns the bytes of rank 0.
    ///
    /// # Errors
    /// A lost rank.
    pub(crate) fn broadcast(&self, bytes: Vec<u8>) -> Result<Vec<u8>, Error> {
        let Some(group) = &self.group else {
            return Ok(bytes);
        };
        let mut length = (bytes.len() as u64).to_le_bytes();
        group.broadcast(&mut length).map_err(Error::Exchange)?;
        let mut bytes = bytes;
        bytes.resize(u64::from_le_bytes(length) as usize, 0);
        group.broadcast(&mut bytes).map_err(Error::Exchange)?;
        Ok(bytes)
    }

    /// Returns the equally long bytes of all ranks, one after the other.
    ///
    /// # Errors
    /// A lost rank.
    pub(crate) fn gather_equal(&self, mut bytes: Vec<u8>) -> Result<Vec<u8>, Error> {
        let Some(group) = &self.group else {
            return Ok(bytes);
        };
        let mut all = vec![0; bytes.len() * self.count];
        let gathered = group.all_gather(&mut bytes, &mut all);
        gathered.map_err(Error::Exchange)?;
        Ok(all)
    }

    /// Returns the bytes of each rank.
    ///
    /// # Errors
    /// A lost rank.
    pub(crate) fn gather(&self, mut bytes: Vec<u8>) -> Result<Vec<Vec<u8>>, Error> {
        if self.group.is_none() {
            return Ok(vec![bytes]);
        }
        let lengths = self.gather_equal((bytes.len() as u64).to_le_bytes().to_vec())?;
        let (lengths, _) = lengths.as_chunks::<8>();
        let length = |bytes: &[u8; 8]| u64::from_le_bytes(*bytes) as usize;
        let lengths: Vec<usize> = lengths.iter().map(length).collect();
        let longest = lengths.iter().copied().max().unwrap_or(0).max(1);
        bytes.resize(longest, 0);
        let all = self.gather_equal(bytes)?;
        let parts = all.chunks(longest).zip(lengths);
        Ok(parts
            .map(|(part, length)| part[..length].to_vec())
            .collect())
    }

    /// Replaces the vector by its sum over all ranks, which is added along a binary tree and has
    /// the same bits on each.
    ///
    /// # Errors
    /// A lost rank.
    #[expect(unsafe_code, reason = "the sum replaces the values of a tensor")]
    pub(crate) fn sum(&mut self, vector: &mut Tensor) -> Result<(), Error> {
        let Some(group) = &self.group else {
            return Ok(());
        };
        // SAFETY: the gradient, a separate buffer that only this thread uses.
        let values = unsafe { values_mut(vector) };
        // Each rank adds one part of the vector.
        let part = values.len().div_ceil(self.count);
        self.sent.resize(part * self.count, 0.0);
        self.received.resize(part * self.count, 0.0);
        self.sent[..values.len()].copy_from_slice(values);
        let exchanged = group.all_to_all(&mut self.sent, &mut self.received);
        exchanged.map_err(Error::Exchange)?;
        add_parts(&mut self.received, part);
        let (own, all) = (&mut self.received[..part], &mut self.sent[..]);
        let gathered = group.all_gather(bytes_of(own), bytes_of(all));
        gathered.map_err(Error::Exchange)?;
        values.copy_from_slice(&self.sent[..values.len()]);
        Ok(())
    }
}

/// Adds the parts of this length along a binary tree, into the first. Their number is a power of
/// two.
fn add_parts(values: &mut [f32], part: usize) {
    let mut stride = part;
    while stride < values.len() {
        for left in (0..values.len()).step_by(2 * stride) {
            let (before, after) = values[left..].split_at_mut(stride);
            for (sum, value) in before[..part].iter_mut().zip(&after[..part]) {
                *sum += value;
            }
        }
        stride *= 2;
    }
}

#[expect(unsafe_code, reason = "the exchange sends bytes")]
fn bytes_of(values: &mut [f32]) -> &mut [u8] {
    // SAFETY: all bit patterns of f32 and u8 are valid, and the length in bytes is that of the
    // slice.
    unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), size_of_val(values)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(rank: usize, count: usize) -> Ranks {
        Ranks {
            rank,
            count,
            ..Ranks::solo()
        }
    }

    #[test]
    fn shards_and_batches_are_divided_without_a_gap() {
        assert_eq!(of(0, 2).own(8), 0..4);
        assert_eq!(of(1, 2).own(8), 4..8);
        assert_eq!(of(3, 4).own(4), 3..4);
        assert_eq!(of(1, 2).share(vec![0, 1, 2, 3, 4]), [1, 3]);
        assert_eq!(of(0, 2).share(vec![0, 1, 2, 3, 4]), [0, 2, 4]);
        assert_eq!(of(0, 1).share(vec![0, 1]), [0, 1]);
    }

    /// In f32, 1 + 2⁻²⁴ rounds to 1, and 2⁻²⁴ + 2⁻²⁴ is exact.
    #[test]
    fn parts_are_added_along_a_tree() {
        let small = 2.0_f32.powi(-24);
        let mut values = [1.0, 10.0, small, 20.0, small, 30.0, small, 40.0];
        add_parts(&mut values, 2);
        assert_eq!(values[..2], [1.0 + 2.0_f32.powi(-23), 100.0]);
    }
}
