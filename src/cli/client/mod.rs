//! The client's side of the API: connection, retries, resumable event streams, verified downloads.

mod connection;
mod download_stream;
mod event_stream;
mod retry;
pub(crate) mod wrong_port;

pub(crate) use connection::{Client, lost_cause, pages, request, request_within};
pub(crate) use download_stream::download;
pub(crate) use event_stream::{ALL_TRAININGS, EventStream, Step, is_final, resume_command};
pub(crate) use retry::RetryPolicy;
