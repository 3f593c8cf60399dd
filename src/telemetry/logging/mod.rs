//! Log lines on stderr: coloured text for people, one JSON object per line for machines.
//!
//! stdout is never used, because worker processes send their protocol there.
//!
//! - `init`: starts logging, and changes the filter while the process runs. `filter`: parses
//!   filters. `json`: the JSON format. `chain`: errors with their causes.

mod chain;
mod filter;
mod init;
mod json;
#[cfg(test)]
mod tests;

pub(crate) use self::{
    chain::chain,
    filter::Error,
    init::{Format, filter, init, set_filter},
};
