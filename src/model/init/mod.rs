//! Initial weights of a training.
//!
//! `load` loads or generates them, `file` reads weights files, and `random` generates weights.

mod file;
mod load;
mod random;
#[cfg(test)]
mod tests;

pub use file::{WeightsFile, check};
pub use load::{Init, InitialWeights, WeightSources, load};
