//! Initial weights of a training.
//!
//! `load` loads or generates them, `file` reads weights files, and `random` generates weights.

mod file;
mod load;
mod random;
#[cfg(test)]
mod tests;

pub(crate) use file::{WeightsFile, check};
pub(crate) use load::{Init, WeightSources, load};
