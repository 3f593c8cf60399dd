//! The first layers: 7×7 convolution with stride 2 over three channels, ReLU, and 3×3 max pooling
//! with stride 2.
//!
//! A row of seven pixels of three channels is 21 adjacent values, so each row of the filter is one
//! tap of 22 values, with weight 0 for the last.

#![expect(
    unsafe_code,
    reason = "it passes pointers to the vector kernels and upholds their contracts"
)]

use std::cell::RefCell;

use super::{
    format::Arithmetic,
    kernel::{Finish, PANEL, ROWS, Rows},
    memory::{Aligned, Shared},
    threads::Threads,
};

/// Rows and columns of the filter.
pub(super) const WIDTH: usize = 7;
/// Pixels of padding on each side.
const PADDING: usize = 3;
pub(super) const CHANNELS: usize = 3;
/// Values of a row of the filter, in pairs.
const PAIRS: usize = ROW.div_ceil(2);
/// The same, one by one.
pub(super) const ROW: usize = WIDTH * CHANNELS;

/// The filter and its bias.
#[derive(Debug, Clone)]
pub(super) struct Stem {
    arithmetic: Arithmetic,
    /// A panel of 22 rows for each row of the filter.
    panel: Aligned<u16>,
    bias: Aligned<u16>,
}

thread_local! {
    static PADDED: RefCell<Aligned<u16>> = const { RefCell::new(Aligned::new()) };
    static RECTIFIED: RefCell<Aligned<u16>> = const { RefCell::new(Aligned::new()) };
}

/// The side of the stem's output for images of this side.
pub(super) fn pooled_side(side: usize) -> usize {
    side.div_ceil(2).div_ceil(2)
}

impl Stem {
    /// Arranges a filter `[64, 3, 7, 7]` with a bias `[64]`.
    pub(super) fn new(arithmetic: Arithmetic, weight: &[f32], bias: &[f32]) -> Self {
        let mut made = Stem {
            bias: arithmetic.sums(bias),
            ..Stem::empty(arithmetic)
        };
        for (index, value) in weight.iter().enumerate() {
            let (x, y) = (index % WIDTH, index / WIDTH % WIDTH);
            let (channel, output) = (
                index / (WIDTH * WIDTH) % CHANNELS,
                index / (WIDTH * WIDTH * CHANNELS),
            );
            made.put(output, y, x * CHANNELS + channel, *value);
        }
        made
    }

    /// An empty filter without a bias, which every training step fills.
    pub(super) fn empty(arithmetic: Arithmetic) -> Self {
        Stem {
            arithmetic,
            panel: Aligned::zeros(WIDTH * PAIRS * 2 * PANEL * arithmetic.width()),
            bias: arithmetic.sums(&[0.0; PANEL]),
        }
    }

    /// Arranges a filter in the optimizer's layout, `[64, 7, 7, 3]`.
    pub(super) fn load(&mut self, weight: &[f32]) {
        for (index, value) in weight.iter().enumerate() {
            let (column, y) = (index % ROW, index / ROW % WIDTH);
            self.put(index / (ROW * WIDTH), y, column, *value);
        }
    }

    /// Stores the weight of a value of a row of the filter.
    fn put(&mut self, output: usize, y: usize, column: usize, weight: f32) {
        let width = self.arithmetic.width();
        let place = self.arithmetic.place_of(y * 2 * PAIRS + column, output);
        let places = &mut self.panel.as_mut_slice()[place * width..][..width];
        self.arithmetic.round_all(&[weight], places);
    }

    /// Processes normalised images `[3, side, side]` each into `[count, pooled, pooled, 64]`.
    ///
    /// # Panics
    /// If the size of a buffer does not match the others.
    pub(super) fn forward(
        &self,
        images: &[&[f32]],
        side: usize,
        threads: &Threads,
        out: &mut [u16],
    ) {
        let half = side.div_ceil(2);
        let pooled = pooled_side(side);
        let of_pixel = PANEL * self.arithmetic.width();
        assert_eq!(out.len(), images.len() * pooled * pooled * of_pixel);
        assert!(
            images
                .iter()
                .all(|image| image.len() == CHANNELS * side * side)
        );
        // Bands of pooled rows, so that few images are divided evenly too. Neighbouring bands share
        // a row, which both compute.
        let bands = threads.parts_of(images.len()).min(pooled);
        let band = pooled.div_ceil(bands);
        let out = Shared::new(out);
        threads.for_each(images.len() * bands, |job| {
            let (image, first) = (job / bands, job % bands * band);
            let last = pooled.min(first + band);
            if first >= last {
                return;
            }
            let rectified_rows = (2 * first).saturating_sub(1)..half.min(2 * last);
            PADDED.with_borrow_mut(|padded| {
                RECTIFIED.with_borrow_mut(|rectified| {
                    pad(
                        self.arithmetic,
                        images[image],
                        side,
                        &rectified_rows,
                        padded,
                    );
                    rectified.resize(rectified_rows.len() * half * of_pixel);
                    let room = Shared::new(rectified.as_mut_slice());
                    self.convolve(padded.as_slice(), side, true, room, 0..rectified_rows.len());
                    let rectified = rectified.as_slice();
                    for y in first..last {
                        for x in 0..pooled {
                            let at = ((image * pooled + y) * pooled + x) * of_pixel;
                            let target = out.place(at, of_pixel);
                            self.pool(rectified, half, &rectified_rows, (y, x), target);
                        }
                    }
                });
            });
        });
    }

    /// Convolves padded rows, with ReLU if requested, into rows of the output `[…, half, 64]`,
    /// which nothing else writes to.
    pub(super) fn convolve(
        &self,
        padded: &[u16],
        side: usize,
        relu: bool,
        out: Shared<'_, u16>,
        rows: std::ops::Range<usize>,
    ) {
        let half = side.div_ceil(2);
        let (width, places) = (padded_width(side), self.arithmetic.width());
        let finish = Finish {
            bias: self.bias.as_slice().as_ptr(),
            relu,
        };
        let begin = rows.start;
        for y in 0..rows.len() {
            for x in (0..half).step_by(ROWS) {
                let count = ROWS.min(half - x);
                let mut sources = [[std::ptr::null(); ROWS]; WIDTH];
                let mut targets = [std::ptr::null_mut(); ROWS];
                for place in 0..count {
                    let at = (begin + y) * half + x + place;
                    targets[place] = out.place(at * PANEL * places, PANEL * places);
                    for (tap, sources) in sources.iter_mut().enumerate() {
                        let at = (2 * y + tap) * width + 2 * (x + place) * CHANNELS;
                        sources[place] = padded[at * places..][..2 * PAIRS * places].as_ptr();
                    }
                }
                let rows = Rows {
                    taps: &sources,
                    count,
                    pairs: PAIRS,
                    step: 2,
                    turn: None,
                };
                let panel = self.panel.as_slice().as_ptr();
                // SAFETY: a network exists only where the instructions are available; sources hold
                // 22 values and targets 64.
                unsafe {
                    self.arithmetic
                        .finished_product(rows, panel, 1.0, finish, &targets)
                };
            }
        }
    }

    /// The maximum of 3×3 rectified pixels around (2y, 2x).
    fn pool(
        &self,
        rectified: &[u16],
        half: usize,
        rows: &std::ops::Range<usize>,
        (y, x): (usize, usize),
        target: *mut u16,
    ) {
        let mut sources = [std::ptr::null(); 9];
        let mut count = 0;
        for row in (2 * y).saturating_sub(1)..half.min(2 * y + 2) {
            for column in (2 * x).saturating_sub(1)..half.min(2 * x + 2) {
                let of_pixel = PANEL * self.arithmetic.width();
                let at = ((row - rows.start) * half + column) * of_pixel;
                sources[count] = rectified[at..at + of_pixel].as_ptr();
                count += 1;
            }
        }
        // SAFETY: a network exists only where the instructions are available; all pointers hold 64
        // values, and no other job has this pixel.
        unsafe { self.arithmetic.largest(&sources[..count], PANEL, target) }
    }
}

/// Values in a padded row: three pixels on each side, one more if the side is odd, and the value
/// with weight 0.
pub(super) fn padded_width(side: usize) -> usize {
    (side + 2 * PADDING + 1) * CHANNELS + 1
}

/// The rows under `rows` of the convolution, `[2 * rows + 5, padded width]`, with the channels of a
/// pixel adjacent.
pub(super) fn pad(
    arithmetic: Arithmetic,
    image: &[f32],
    side: usize,
    rows: &std::ops::Range<usize>,
    padded: &mut Aligned<u16>,
) {
    let places = arithmetic.width();
    let width = padded_width(side) * places;
    let of_row = side * places;
    let mut rounded = vec![0; CHANNELS * of_row];
    let height = 2 * rows.len() + WIDTH - 2;
    padded.resize(height * width);
    let padded = padded.as_mut_slice();
    for (row, target) in padded.chunks_exact_mut(width).enumerate() {
        let y = (2 * rows.start + row).wrapping_sub(PADDING);
        if y >= side {
            target.fill(0);
            continue;
        }
        let (left, rest) = target.split_at_mut(PADDING * CHANNELS * places);
        let (middle, right) = rest.split_at_mut(CHANNELS * of_row);
        left.fill(0);
        right.fill(0);
        for (channel, rounded) in rounded.chunks_exact_mut(of_row).enumerate() {
            arithmetic.round_all(&image[(channel * side + y) * side..][..side], rounded);
        }
        if places == 1 {
            side_by_side::<1>(&rounded, middle);
        } else {
            side_by_side::<2>(&rounded, middle);
        }
    }
}

/// Interleaves the channels of a row, which are stored one after the other.
fn side_by_side<const PLACES: usize>(channels: &[u16], pixels: &mut [u16]) {
    let (numbers, _) = channels.as_chunks::<PLACES>();
    let (red, others) = numbers.split_at(numbers.len() / CHANNELS);
    let (green, blue) = others.split_at(red.len());
    let channels = red.iter().zip(green).zip(blue);
    let pixels = pixels
        .as_chunks_mut::<PLACES>()
        .0
        .as_chunks_mut::<CHANNELS>();
    for (pixel, ((red, green), blue)) in pixels.0.iter_mut().zip(channels) {
        *pixel = [*red, *green, *blue];
    }
}
