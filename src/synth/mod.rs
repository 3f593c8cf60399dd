//! Synthetic labelled faces, for trying a training without data and for tests.
//!
//! The visible features depend on the age in the file name as they do in life: a baby's
//! proportions, grey hair, a receding hairline, lines, folds and spots. Everything else varies
//! freely: skin, hair, pose, light, noise. The persons do not exist, and a model trained on these
//! drawings does not work on people.
//!
//! - [`write_faces`] fills a directory with UTKFace's names,
//!   `{age}_{gender}_{race}_{stamp}.jpg.chip.jpg`.
//! - [`Person::sample`] and [`Person::draw`] create a single image.
//!
//! Equal options have equal bytes on every run. Image `n` depends only on the seed and on `n`, so a
//! larger `count` only adds images.
//!
//! `person` samples the traits, `layout` places the features, `face` composes, `features`,
//! `ageing`, `hair` and `beard` draw the parts with the tools in `draw`, `camera` adds light and
//! noise, and `directory` owns the files.

mod ageing;
mod beard;
mod camera;
mod directory;
mod draw;
mod face;
mod features;
mod hair;
mod layout;
mod person;

#[cfg(test)]
mod tests;

pub(crate) use directory::Error;
pub use directory::{Options, write_faces};
pub use person::Person;
