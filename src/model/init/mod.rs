//! Initial weights of a training.
//!
//! `load` loads or generates them, `file` reads weights files, `random` generates weights, and
//! `provenance` finds the images that weights were trained on.

mod file;
mod load;
mod provenance;
mod random;
#[cfg(test)]
mod tests;

pub(crate) use file::{WeightsFile, check};
pub(crate) use load::{Init, InitialWeights, WeightSources, load, source_of};
