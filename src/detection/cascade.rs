//! The order of the stages, from a grey image to windows.

use image::GrayImage;

use super::{
    boosted::{Features, WINDOW},
    model::Model,
    network::{Gradients, Network},
};

/// Step of the sliding window in pixels, at each size of the image.
const STEP: usize = 4;
/// Factor from one size of the image to the next, as in the original: the networks move and resize
/// a window by up to its own size, so smaller steps take longer and find little more.
const SCALE_STEP: f32 = 0.8;
/// Overlap above which windows are merged, before the last stage and after it.
const EARLY_OVERLAP: f32 = 0.8;
const FINAL_OVERLAP: f32 = 0.3;
/// Most windows of each classifier that are kept, by score. An image of a crowd has some hundreds;
/// an image crafted to have a hundred thousand would occupy a thread for minutes.
const MAX_WINDOWS: usize = 4096;
/// Windows between two calls of `stop`.
const STOP_INTERVAL: usize = 64;

/// A candidate square, in pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Window {
    pub(super) x: i32,
    pub(super) y: i32,
    pub(super) side: i32,
    pub(super) score: f64,
}

/// Returns the faces of a grey image; `None` if `stop` returned true between two steps.
pub(super) fn search(
    model: &Model,
    image: &GrayImage,
    stop: &dyn Fn() -> bool,
) -> Option<Vec<Window>> {
    let mut windows = Vec::new();
    for candidates in propose(model, image, stop)? {
        windows.extend(merge(candidates, EARLY_OVERLAP));
    }
    // Windows that have become similar are merged after each network, except before the last one,
    // as in the original.
    let last = model.networks.len().saturating_sub(1);
    for (index, network) in model.networks.iter().enumerate() {
        windows = refine(network, image, windows, stop)?;
        if index == last {
            windows = merge(windows, FINAL_OVERLAP);
        } else if index + 1 < last {
            windows = merge(windows, EARLY_OVERLAP);
        }
    }
    Some(windows)
}

/// Returns the windows that each boosted classifier accepts.
fn propose(model: &Model, image: &GrayImage, stop: &dyn Fn() -> bool) -> Option<Vec<Vec<Window>>> {
    let (width, height) = image.dimensions();
    let mut proposed = vec![Vec::new(); model.boosted.len()];
    let mut features = Features::default();
    let mut pixels = Vec::new();
    let least = WINDOW as f32 / width.min(height) as f32;
    let mut scale = 1.0_f32;
    while scale >= least {
        if stop() {
            return None;
        }
        let (columns, rows) = (
            (width as f32 * scale) as usize,
            (height as f32 * scale) as usize,
        );
        if columns.min(rows) < WINDOW {
            break;
        }
        let all = Window {
            x: 0,
            y: 0,
            side: 0,
            score: 0.0,
        };
        resample(image, all, (width, height), (columns, rows), &mut pixels);
        features.compute(&pixels, columns);
        let side = (WINDOW as f32 / scale + 0.5) as i32;
        let unscaled = |place: usize| (place as f32 / scale + 0.5) as i32;
        for top in (0..=rows - WINDOW).step_by(STEP) {
            for left in (0..=columns - WINDOW).step_by(STEP) {
                for (classifier, proposed) in model.boosted.iter().zip(&mut proposed) {
                    if let Some(score) = classifier.score(&features, left, top) {
                        proposed.push(Window {
                            x: unscaled(left),
                            y: unscaled(top),
                            side,
                            score: f64::from(score),
                        });
                    }
                }
            }
        }
        scale *= SCALE_STEP;
    }
    Some(proposed)
}

/// Keeps the windows that a network classifies as faces, moved and resized by its outputs.
fn refine(
    network: &Network,
    image: &GrayImage,
    windows: Vec<Window>,
    stop: &dyn Fn() -> bool,
) -> Option<Vec<Window>> {
    let mut gradients = Gradients::default();
    let mut pixels = Vec::new();
    let mut kept = Vec::new();
    for (index, window) in windows.into_iter().enumerate() {
        if index % STOP_INTERVAL == 0 && stop() {
            return None;
        }
        if !touches(window, image) {
            continue;
        }
        let side = window.side as u32;
        resample(image, window, (side, side), (WINDOW, WINDOW), &mut pixels);
        let Some(pixels) = pixels.first_chunk() else {
            continue;
        };
        gradients.compute(pixels);
        let Some(detection) = network.classify(&gradients) else {
            continue;
        };
        let before = window.side as f32;
        let after = (detection.growth * before + before + 0.5).floor();
        let moved = |place: i32, by: f32| {
            (by * before + place as f32 + (before - after) * 0.5 + 0.5).floor() as i32
        };
        kept.push(Window {
            x: moved(window.x, detection.right),
            y: moved(window.y, detection.down),
            side: after as i32,
            score: f64::from(detection.certainty),
        });
    }
    Some(kept)
}

/// Returns true if a part of the window is inside the image; a network may have moved it anywhere.
fn touches(window: Window, image: &GrayImage) -> bool {
    let inside =
        |place: i32, length: u32| place < length as i32 && place.saturating_add(window.side) > 0;
    window.side >= 2 && inside(window.x, image.width()) && inside(window.y, image.height())
}

/// Resamples the part of the image of `size` at the window's upper left corner, without smoothing,
/// as the model was trained. Pixels outside the image are black.
fn resample(
    image: &GrayImage,
    window: Window,
    size: (u32, u32),
    (columns, rows): (usize, usize),
    out: &mut Vec<u8>,
) {
    let (width, height) = (image.width() as i32, image.height() as i32);
    let pixels = image.as_raw();
    let is_inside = window.x >= 0
        && window.y >= 0
        && window.x + size.0 as i32 <= width
        && window.y + size.1 as i32 <= height;
    let at = |x: i32, y: i32| {
        if is_inside || ((0..width).contains(&x) && (0..height).contains(&y)) {
            return f64::from(pixels[y as usize * width as usize + x as usize]);
        }
        0.0
    };
    // The pixel to the left, which is never the last one, and the weight of the one to its right.
    let source = |place: usize, length: u32, target: usize| {
        let exact = f64::from(length) / target as f64 * place as f64;
        let whole = (exact as i32).min(length as i32 - 2);
        (whole, exact - f64::from(whole))
    };
    let across: Vec<(i32, f64)> = (0..columns)
        .map(|column| source(column, size.0, columns))
        .collect();
    out.clear();
    for row in 0..rows {
        let (y, down) = source(row, size.1, rows);
        let y = window.y + y;
        for (x, right) in &across {
            let x = window.x + x;
            let upper = (1.0 - right) * at(x, y) + right * at(x + 1, y);
            let lower = (1.0 - right) * at(x, y + 1) + right * at(x + 1, y + 1);
            out.push(((1.0 - down) * upper + down * lower) as u8);
        }
    }
}

/// Merges windows that overlap by more than `limit` (intersection over union): the best of them
/// remains, with the sum of their scores.
fn merge(mut windows: Vec<Window>, limit: f32) -> Vec<Window> {
    windows.sort_by(|one, other| other.score.total_cmp(&one.score));
    windows.truncate(MAX_WINDOWS);
    let mut best: Vec<Window> = Vec::new();
    let mut is_merged = vec![false; windows.len()];
    for index in 0..windows.len() {
        if is_merged[index] {
            continue;
        }
        let first = windows[index];
        let mut score = first.score;
        for (other, is_merged) in windows.iter().zip(&mut is_merged).skip(index + 1) {
            if !*is_merged && overlap(&first, other) > limit {
                *is_merged = true;
                score += other.score;
            }
        }
        best.push(Window { score, ..first });
    }
    best
}

/// Returns the intersection over union.
fn overlap(one: &Window, other: &Window) -> f32 {
    let along = |a: i32, b: i32| (a + one.side).min(b + other.side) - a.max(b);
    let (width, height) = (along(one.x, other.x), along(one.y, other.y));
    if width <= 0 || height <= 0 {
        return 0.0;
    }
    let area = |window: &Window| (window.side as f32).powi(2);
    let shared = width as f32 * height as f32;
    shared / (area(one) + area(other) - shared)
}
