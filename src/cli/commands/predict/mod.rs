//! `visage predict`: ages on images, in the order of the files.

mod images;
mod printer;
mod run;
mod targets;

pub(crate) use run::{Args, run};
