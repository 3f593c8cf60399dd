//! Doubts about ages that were read from the start of file names: ranges, running numbers, and
//! names of other datasets.
//!
//! File names cannot prove the meaning of a number, so nothing is rejected here. A doubt becomes a
//! warning of the report, or the explanation of a refusal; an `age_pattern` settles it.

mod path;
mod ranges;
mod reading;
#[cfg(test)]
mod tests;

pub(super) use self::reading::DefaultReading;
