//! A restricted unpickler, which builds plain values and descriptions of tensors, and nothing else.
//!
//! A pickle is a program. Python's unpickler imports and calls whatever that program names. This
//! one accepts only the names that tensors need (`Global::named`) and executes nothing. An object
//! of any other name becomes a placeholder ([`Value::Object`]), so that a checkpoint is readable
//! whatever objects it has beside its tensors.
//!
//! Values live in one vector and refer to each other by index ([`Id`]). Values that contain
//! themselves, thousands of nested lists, or a long string that is read from the memo thousands of
//! times therefore need no recursion and no copies, neither here nor when the values are dropped:
//! memory grows by a few bytes for each byte of the pickle.
//!
//! `machine` runs the instructions of `opcode`, `reader` reads their operands, `stack` holds stack
//! and memo, `objects` replaces Python's calls, and `value` holds the results.

mod machine;
mod objects;
pub(super) mod opcode;
mod reader;
mod stack;
mod value;

pub(super) use machine::{is_pickle, unpickle};
pub(super) use value::{Id, Storage, TensorView, Value, Values};
