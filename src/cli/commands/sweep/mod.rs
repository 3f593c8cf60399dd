//! `visage sweep`: trains combinations of a few fields one after the other, and compares them.

mod args;
mod plan;
mod request;
mod run;
mod runs;
mod table;
mod version;

#[cfg(test)]
mod tests;

pub(crate) use args::Args;
pub(crate) use run::run;
