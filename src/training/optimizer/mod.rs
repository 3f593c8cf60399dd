//! Optimizers of the flat parameter buffer, whose state can be saved.

mod average;
mod kernel;
mod options;
mod step;
#[cfg(test)]
mod tests;

pub(super) use self::{
    average::MovingAverage,
    options::{OptimizerKind, OptimizerOptions},
    step::Optimizer,
};
