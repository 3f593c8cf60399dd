//! `visage top`: current trainings and serving load on a terminal.
//!
//! - `metrics_page`: fetches and parses the server's metrics page.
//! - `sample`: the state of the server at one moment. `rates`: the change between two samples.
//! - `layout` draws a `view` of both, with `trainings` above and `serving` below.
//! - `screen`: the terminal and its keys. `run`: the refresh loop.

mod layout;
mod metrics_page;
mod rates;
mod run;
mod sample;
mod screen;
mod serving;
mod text;
mod trainings;
mod view;

#[cfg(test)]
mod tests;

pub(crate) use run::{Args, run};
