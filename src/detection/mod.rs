//! Where the faces are in an image.
//!
//! The detector is SeetaFace's for frontal faces: a funnel of boosted classifiers over a sliding window and of small neural networks that keep, move and resize
//! what is left (Wu, Kan, He, Shan, Chen, "Funnel-structured cascade for multi-view face detection with alignment awareness", Neurocomputing 221, 2017). Its
//! learned numbers are `seetaface/seeta_fd_frontal_v1.0.bin`, as the crate `rustface` publishes them, with the licence (BSD-2-Clause) beside them.
//!
//! The computation is our own, and in safe Rust: the crate's reads and writes outside of its buffers when a network moves a window out of the image, and here
//! images come from strangers. A test compares both on a photograph.
//!
//! - [`find`]: from an image to the squares that a network for ages was trained to see. `margin` has what was measured for that.
//! - `model`: the file with the learned numbers. `boosted`, `network`: the two kinds of classifiers. `funnel`: how they are put together.

mod boosted;
mod cascade;
mod crop;
mod model;
mod network;
#[cfg(test)]
mod tests;

use std::sync::OnceLock;

use image::{
    GrayImage, RgbImage,
    imageops::{self, FilterType},
};

use model::Model;

pub use crop::crop;

/// Most faces of an image; those that [`Face::weight`] puts first.
pub const MOST_FACES: usize = 64;

/// The longer side in pixels of what is searched. The funnel's window has 40 pixels, so the smallest face that it finds has 4 % of the image's longer side: a
/// face of 100 pixels in a photograph of 2,560. Twice the side would take four times as long.
const LONGEST_SIDE: u32 = 1024;
/// Images whose shorter side has fewer pixels are enlarged, as far as the longer side lets them: a face that fills half of a thumbnail is larger than the window.
const SHORTEST_SIDE: u32 = 240;
/// Merged windows' scores add up, each at most 1, so this is how many windows must agree. Of 300 chips of UTKFace in larger images 2.0 and 2.8 find 292 and
/// 3.85, the crate's default, 289; and in what surrounds them, which is plain, noise or soft spots, 5, 3 and 1 faces that are none.
const LEAST_SCORE: f64 = 2.8;

/// A square of an image; it may reach beyond its edges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Square {
    /// Left edge in pixels.
    pub left: i32,
    /// Upper edge in pixels.
    pub top: i32,
    /// Width and height in pixels, at least 1.
    pub side: u32,
}

/// A face that was found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Face {
    /// What the detector marks.
    pub detected: Square,
    /// The square to predict on, cut as training images are.
    pub crop: Square,
    /// How many windows agree on it, each weighted by its own certainty.
    pub score: f64,
}

impl Face {
    /// Score times area: large for the face that an image is of.
    pub fn weight(&self) -> f64 {
        self.score * f64::from(self.detected.side).powi(2)
    }
}

/// The faces of an image by falling [`Face::weight`], [`MOST_FACES`] at most; `None` when `stop` said so between two steps.
pub fn find(image: &RgbImage, stop: &dyn Fn() -> bool) -> Option<Vec<Face>> {
    let (searched, scale) = shrink(image);
    let windows = cascade::search(model(), &searched, stop)?;
    let to_image = |pixels: i32| (f64::from(pixels) / scale).round() as i32;
    let mut faces: Vec<Face> = windows
        .into_iter()
        .filter(|window| window.score >= LEAST_SCORE)
        .map(|window| {
            let detected = Square {
                left: to_image(window.x),
                top: to_image(window.y),
                side: to_image(window.side).max(1) as u32,
            };
            Face {
                detected,
                crop: crop::around(detected),
                score: window.score,
            }
        })
        .collect();
    faces.sort_by(|one, other| other.weight().total_cmp(&one.weight()));
    faces.truncate(MOST_FACES);
    Some(faces)
}

/// The image in grey at the size at which it is searched, and how much larger or smaller than the image that is.
fn shrink(image: &RgbImage) -> (GrayImage, f64) {
    let (width, height) = image.dimensions();
    let (longest, shortest) = (
        f64::from(width.max(height)),
        f64::from(width.min(height).max(1)),
    );
    let wanted = (f64::from(SHORTEST_SIDE) / shortest).max(1.0);
    let scale = wanted.min(f64::from(LONGEST_SIDE) / longest);
    let scaled = |side: u32| (f64::from(side) * scale).round().max(1.0) as u32;
    let size = (scaled(width), scaled(height));
    let grey = if size == (width, height) {
        imageops::grayscale(image)
    } else if scale < 1.0 {
        imageops::grayscale(&imageops::thumbnail(image, size.0, size.1))
    } else {
        let grey = imageops::grayscale(image);
        imageops::resize(&grey, size.0, size.1, FilterType::Triangle)
    };
    (grey, scale)
}

/// The learned numbers, read when the first face is looked for.
fn model() -> &'static Model {
    const FILE: &[u8] = include_bytes!("seetaface/seeta_fd_frontal_v1.0.bin");
    static MODEL: OnceLock<Model> = OnceLock::new();
    MODEL.get_or_init(|| Model::read(FILE).expect("the file is part of the program and tested"))
}
