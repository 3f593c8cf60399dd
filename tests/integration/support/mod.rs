//! Servers, requests and conditions of the tests.

mod datasets;
mod http;
mod process;
mod server;
mod trainings;

pub(crate) use self::{
    datasets::by_name,
    http::{Answer, ask, code, header, page, reason},
    process::{PATIENCE, faces, files_of, is_alive, signal, text_of, wait_until},
    server::Server,
    trainings::{is_final, long_spec, small_spec, states},
};
