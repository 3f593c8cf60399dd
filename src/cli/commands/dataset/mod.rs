//! `visage dataset`: uploads, registers, lists, deletes and checks datasets.

mod archive;
mod args;
mod background;
mod check;
mod chunk;
mod named;
mod push;
mod response;
mod send;
mod upload;
mod uploads;

pub(crate) use args::{Command, run};
