//! Draws labelled images of invented people, so that a training can be tried without any real photograph.
//!
//! An image's visible features depend on the age in its file name as they do in life: a baby's proportions, grey hair,
//! a receding hairline, lines, folds and spots. Everything else varies freely: skin, hair, pose, light, noise. Nobody
//! depicted exists, and a model trained on these drawings says nothing about people.
//!
//! - [`write_faces`] fills a directory in UTKFace's naming, `{age}_{gender}_{race}_{stamp}.jpg.chip.jpg`.
//! - [`Person::sample`] and [`Person::draw`] give a single image.
//!
//! The same options give the same bytes on every run. Image `n` depends on the seed and on `n` alone, so a larger
//! `count` only adds images.
//!
//! Inside: `person` samples the traits, `face` lays out and composes, `features`, `ageing`, `hair` and `beard` draw
//! the parts with the tools in `draw`, `camera` takes the photograph, `directory` owns the files.

mod ageing;
mod beard;
mod camera;
mod directory;
mod draw;
mod face;
mod features;
mod hair;
mod person;
#[cfg(test)]
mod tests;

pub use directory::{Error, Options, Summary, write_faces};
pub use person::{Gender, Person, Race};
