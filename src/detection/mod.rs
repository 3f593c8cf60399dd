//! Face detection.
//!
//! The detector is SeetaFace's for frontal faces: a cascade of boosted classifiers over a sliding
//! window and of small neural networks that filter, move and resize the remaining windows (Wu, Kan,
//! He, Shan, Chen, "Funnel-structured cascade for multi-view face detection with alignment
//! awareness", Neurocomputing 221, 2017). Its parameters are `seetaface/seeta_fd_frontal_v1.0.bin`,
//! as published in the crate `rustface`, with the licence (BSD-2-Clause) beside them.
//!
//! The implementation is our own, in safe Rust: the crate accesses memory outside its buffers when
//! a network moves a window out of the image, and clients' images are untrusted. A test compares
//! the results of both.
//!
//! - `cascade`: the order of the stages. `boosted`, `network`: the two kinds of classifiers.
//! - `model`: the file format of the parameters.
//! - `crop`: from a detection to the square that a network for ages was trained on.

mod boosted;
mod cascade;
mod crop;
mod model;
mod network;

use std::sync::OnceLock;

use image::{
    GrayImage, RgbImage,
    imageops::{self, FilterType},
};

use model::Model;

pub(crate) use crop::crop;

/// Most faces of an image, by [`Face::weight`].
pub(crate) const MAX_FACES: usize = 64;

/// Longer side of the searched image in pixels. The window has 40 pixels, so the smallest face that
/// is found has 4 % of the longer side: 100 pixels in an image of 2,560. Twice the side would take
/// four times as long.
const LONGEST_SIDE: u32 = 1024;
/// Images with a shorter side below this are enlarged, as far as [`LONGEST_SIDE`] allows: a face
/// that fills half of a thumbnail would be smaller than the window otherwise.
const SHORTEST_SIDE: u32 = 240;
/// Number of windows that must agree: the scores of merged windows, at most 1 each, are added up.
/// Of 300 UTKFace crops in larger images 2.0 and 2.8 find 292, and 3.85, the crate's default, 289;
/// in the plain, noisy or blurred backgrounds they find 5, 3 and 1 false faces.
const MIN_SCORE: f64 = 2.8;

/// A square of an image; it may reach beyond its edges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Square {
    /// Left edge in pixels.
    pub left: i32,
    /// Upper edge in pixels.
    pub top: i32,
    /// Width and height in pixels, at least 1.
    pub side: u32,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Face {
    /// The square that the detector marks.
    pub detected: Square,
    /// The square to predict on, cut as training images are.
    pub crop: Square,
    /// Number of windows that agree on it, each weighted by its own certainty.
    pub score: f64,
}

impl Face {
    /// Returns the score times the area: large for the main face of an image.
    pub(crate) fn weight(&self) -> f64 {
        self.score * f64::from(self.detected.side).powi(2)
    }
}

/// Returns the faces of an image by falling [`Face::weight`], at most [`MAX_FACES`]; `None` if
/// `stop` returned true between two steps.
pub(crate) fn find(image: &RgbImage, stop: &dyn Fn() -> bool) -> Option<Vec<Face>> {
    let (searched, scale) = shrink(image);
    let windows = cascade::search(model(), &searched, stop)?;
    let to_image = |pixels: i32| (f64::from(pixels) / scale).round() as i32;
    let mut faces: Vec<Face> = windows
        .into_iter()
        .filter(|window| window.score >= MIN_SCORE)
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
    faces.truncate(MAX_FACES);
    Some(faces)
}

/// Returns the image in grey at the size at which it is searched, and the scale of that size.
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

/// Returns the parameters, which are read at the first detection.
fn model() -> &'static Model {
    const FILE: &[u8] = include_bytes!("seetaface/seeta_fd_frontal_v1.0.bin");
    static MODEL: OnceLock<Model> = OnceLock::new();
    MODEL.get_or_init(|| Model::read(FILE).expect("the file is part of the program and tested"))
}

#[cfg(test)]
mod tests;
