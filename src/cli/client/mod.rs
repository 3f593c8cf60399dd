//! The client's side of the API: connection, credentials and TLS, retries, resumable event streams,
//! verified downloads.

mod connection;
mod credentials;
mod download_stream;
mod event_stream;
pub(crate) mod http;
mod retry;
pub(crate) mod tls_failure;
pub(crate) mod wrong_port;

pub(crate) use connection::{Client, lost_cause, pages, request, request_within};
pub(crate) use credentials::Credentials;
pub(crate) use download_stream::download;
pub(crate) use event_stream::{ALL_TRAININGS, EventStream, Step, is_final, resume_command};
pub(crate) use retry::RetryPolicy;
