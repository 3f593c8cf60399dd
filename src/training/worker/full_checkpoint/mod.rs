//! The full checkpoint: the state that a later process needs for a bit-equal resume.
//!
//! It is one file in the work directory, `trainer-….safetensors`, with the trained parameters and
//! both moments as flat buffers, the other tensors of the network by name, the moving average, and
//! a `TrainerRecord` of all numbers. Random choices are functions of seed, epoch and position, so
//! it needs no random state. A separate thread writes it while the training continues with copies
//! of what it changes. The checksum is a CRC32C, which is cheap and detects damage.

mod format;
mod restored;
mod snapshot;
#[cfg(test)]
mod tests;
mod writer;

pub(super) use self::{
    restored::{Restored, read},
    snapshot::Snapshot,
    writer::{Error, Writer},
};
