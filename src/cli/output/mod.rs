//! Stdout, stderr, tables, JSON, and values as text.

mod bar;
mod console;
pub(crate) mod json;
pub(crate) mod table;
pub(crate) mod text;

pub(crate) use console::{Output, printable};
