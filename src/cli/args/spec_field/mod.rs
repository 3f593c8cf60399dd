//! Fields of `TrainingSpec` by their names in the API, such as `optimizer.learning_rate`, and
//! values for them as text.
//!
//! Names and types come from the descriptors, so a field that is added to the API can be set
//! without a change here.

mod field;
mod suggestions;
mod value;

#[cfg(test)]
mod tests;

pub(crate) use field::{Assignment, Field, split_assignment};
