//! `visage predict`: ages on images, in the order of the files.
//!
//! - `inputs`: files and the images of directories.
//! - `groups`: splits them into requests. `requests`: sends them, and finds bad images.
//! - `targets`: files for drawn images. `objects`: results as JSON.
//! - `printer`: results on stdout. `table_file`: results in a CSV or JSON Lines file.

mod args;
mod groups;
mod inputs;
mod objects;
mod printer;
mod requests;
mod run;
mod summary;
mod table_file;
mod targets;

pub(crate) use args::Args;
pub(crate) use run::run;
