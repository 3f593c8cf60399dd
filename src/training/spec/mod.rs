//! The checked training specification.
//!
//! [`Spec::resolve`] checks a request and fills in the defaults, so that a `Spec` holds no value
//! out of range. It reports all violations at once, each with the path of its field. Meaning, units
//! and defaults of the fields are those of `TrainingSpec` in the API.
//!
//! - `resolved`: the spec. `augmentation`, `choices`, `init`, `limits`, `loss`, `optimizer` and
//!   `shards` convert its fields from and to messages.
//! - `recipes`: named sets of values for unset fields.
//! - `change`: changes of the spec of a live training.

mod augmentation;
mod change;
mod choices;
mod init;
mod limits;
mod loss;
mod optimizer;
mod recipes;
mod resolved;
mod shards;
#[cfg(test)]
mod tests;

pub(crate) use self::{
    change::{Changes, change, halve_batch},
    resolved::{SINGLE_VALUE_SIZE, Spec},
};
