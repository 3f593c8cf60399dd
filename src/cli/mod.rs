//! The command line: turns arguments into requests of the public API, and responses into text or
//! JSON.
//!
//! - `program`: parses the arguments and runs one command.
//! - `commands`: one file or directory per command, with its arguments and one `run`.
//! - `args`: arguments that several commands share, and their conversion to the API.
//! - `client`: the connection to a server, retries, resumable event streams, verified downloads.
//! - `report`: trainings, evaluations and datasets as lines of text.
//! - `status_text`: the server's refusals as error messages.
//! - `output`: stdout, stderr, tables and JSON.
//!
//! All commands but `serve`, `worker` and the local ones are ordinary clients. Results are written
//! to stdout, everything else to stderr. Exit codes: 0 success (for a training: SUCCEEDED),
//! 1 failure, 2 wrong usage or settings, 3 unreachable server, 130 interrupted, 141 closed stdout.

mod args;
mod client;
mod commands;
mod context;
mod error;
mod examples;
mod output;
mod program;
mod report;
mod status_text;
mod suggestions;

#[cfg(test)]
mod tests;

pub use program::main;
