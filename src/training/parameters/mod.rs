//! Trained parameters in one flat buffer, shared by the network and the optimizer.

mod flat;
#[cfg(test)]
mod tests;

pub(super) use self::flat::FlatParameters;
