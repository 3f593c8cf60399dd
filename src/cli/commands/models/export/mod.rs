//! `visage models export`: a model version as a file that other programs read.
//!
//! The server sends its stored files; the conversion runs here and costs the server nothing.
//!
//! - `args`: flags. `run`: the command. `write`: the files. `describe`: the text about a file.
//! - `snippet`: Python code that predicts with a file. `server`: the precision of the server.

mod args;
mod describe;
mod run;
mod server;
mod snippet;
mod write;

pub(crate) use self::{args::Args, run::run};
