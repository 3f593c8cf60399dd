//! `visage train`: starts a training and follows it.

mod args;
mod request;
mod run;

#[cfg(test)]
mod tests;

pub(crate) use args::Args;
pub(crate) use request::START_TIMEOUT;
pub(crate) use run::run;
