//! Draws labelled pictures of invented people, so that a training can be tried without any real photograph.
//!
//! A picture's visible features depend on the age in its file name as they do in life: a baby's proportions, grey hair,
//! a receding hairline, lines, folds and spots. Everything else varies freely: skin, hair, pose, light, noise. Nobody
//! depicted exists, and a model trained on these drawings says nothing about people.
//!
//! - [`write_faces`] fills a folder in UTKFace's naming, `{age}_{gender}_{race}_{stamp}.jpg.chip.jpg`.
//! - [`Person::sample`] and [`Person::draw`] give a single picture.
//!
//! The same options give the same bytes on every run. Picture `n` depends on the seed and on `n` alone, so a larger
//! `count` only adds pictures.
//!
//! Inside: `person` samples the traits, `face` lays out and composes, `features`, `ageing`, `hair` and `beard` draw
//! the parts with the tools in `draw`, `camera` takes the photograph, `folder` owns the files.

mod ageing;
mod beard;
mod camera;
mod draw;
mod face;
mod features;
mod folder;
mod hair;
mod person;
#[cfg(test)]
mod tests;

pub use folder::{Error, Options, Summary, write_faces};
pub use person::{Gender, Person, Race};
