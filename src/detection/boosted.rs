//! The first stage: boosted classifiers over locally assembled binary features (LAB), which see
//! every window.
//!
//! A feature compares the sum of a square of 3×3 pixels with its eight neighbours of the same size.
//! The eight results are the bits of an index into a table of weights. After each group of features
//! a window with too low a sum is dropped; most are dropped after the first group.

/// The window's side in pixels.
pub(super) const WINDOW: usize = 40;
/// Features between two comparisons of the sum.
pub(super) const GROUP: usize = 10;
/// Side of a summed square, and of all nine.
const CELL: usize = 3;
const ALL_CELLS: usize = 3 * CELL;
/// Last position in the window, in each direction, at which a feature fits.
pub(super) const LAST_PLACE: usize = WINDOW - ALL_CELLS;
/// Least standard deviation of a window in grey levels: plain areas are not faces, whatever their
/// noise looks like.
const MIN_DEVIATION: f64 = 10.0;

#[derive(Debug)]
pub(super) struct BoostedClassifier {
    /// Column and row in the window.
    positions: Vec<(usize, usize)>,
    thresholds: Vec<f32>,
    /// 256 for each feature.
    weights: Vec<f32>,
}

/// An image's features at every pixel, and integral images for the deviation of a window.
#[derive(Debug, Default)]
pub(super) struct Features {
    width: usize,
    bits: Vec<u8>,
    /// Integral image, with a first row and column of zeros.
    sums: Vec<i32>,
    /// The same of the squares. Sums wrap around; differences wrap back to the right values.
    squares: Vec<u32>,
    cells: Vec<i32>,
}

impl Features {
    /// Computes the features of grey pixels, row by row; no side may be shorter than a window.
    pub(super) fn compute(&mut self, pixels: &[u8], width: usize) {
        let height = pixels.len() / width;
        debug_assert!(width >= WINDOW && height >= WINDOW);
        self.width = width;
        self.integrate(pixels, width, height);
        let (columns, rows) = (width - CELL + 1, height - CELL + 1);
        let wide = width + 1;
        self.cells.clear();
        for row in 0..rows {
            let above = &self.sums[row * wide..][..wide];
            let below = &self.sums[(row + CELL) * wide..][..wide];
            let ends = below[CELL..].iter().zip(&above[CELL..]);
            let begins = below.iter().zip(above);
            let sums = ends.zip(begins);
            let of = |((be, ae), (bb, ab)): ((&i32, &i32), (&i32, &i32))| be - ae - bb + ab;
            self.cells.extend(sums.map(of));
        }
        self.bits.clear();
        self.bits.resize(width * height, 0);
        for row in 0..=height - ALL_CELLS {
            let [upper, middle, lower] =
                [0, CELL, 2 * CELL].map(|down| &self.cells[(row + down) * columns..][..columns]);
            let bits = &mut self.bits[row * width..][..=width - ALL_CELLS];
            for (column, bits) in bits.iter_mut().enumerate() {
                let (right, end) = (column + CELL, column + 2 * CELL);
                let centre = middle[right];
                let around = [
                    upper[column],
                    upper[right],
                    upper[end],
                    middle[column],
                    middle[end],
                    lower[column],
                    lower[right],
                    lower[end],
                ];
                *bits = around
                    .iter()
                    .fold(0, |bits, cell| bits << 1 | u8::from(centre >= *cell));
            }
        }
    }

    fn integrate(&mut self, pixels: &[u8], width: usize, height: usize) {
        let wide = width + 1;
        self.sums.clear();
        self.sums.resize(wide * (height + 1), 0);
        self.squares.clear();
        self.squares.resize(wide * (height + 1), 0);
        for (row, pixels) in pixels.chunks_exact(width).enumerate() {
            let (mut sum, mut squares) = (0_i32, 0_u32);
            let above = row * wide;
            for (column, pixel) in pixels.iter().enumerate() {
                sum += i32::from(*pixel);
                squares = squares.wrapping_add(u32::from(*pixel).pow(2));
                let here = above + wide + column + 1;
                self.sums[here] = self.sums[above + column + 1] + sum;
                self.squares[here] = self.squares[above + column + 1].wrapping_add(squares);
            }
        }
    }

    /// Returns true if the grey levels of a window vary enough for a face.
    fn varies(&self, left: usize, top: usize) -> bool {
        let wide = self.width + 1;
        let [a, b, c, d] = [
            (top + WINDOW) * wide + left + WINDOW,
            top * wide + left + WINDOW,
            (top + WINDOW) * wide + left,
            top * wide + left,
        ];
        let sum = self.sums[a] - self.sums[b] - self.sums[c] + self.sums[d];
        let squares = self.squares[a]
            .wrapping_sub(self.squares[b])
            .wrapping_sub(self.squares[c])
            .wrapping_add(self.squares[d]);
        let area = (WINDOW * WINDOW) as f64;
        let mean = f64::from(sum) / area;
        (f64::from(squares) / area - mean * mean).sqrt() > MIN_DEVIATION
    }
}

impl BoostedClassifier {
    /// There must be as many positions as thresholds, in whole groups, and 256 times as many
    /// weights.
    pub(super) fn new(
        positions: Vec<(usize, usize)>,
        thresholds: Vec<f32>,
        weights: Vec<f32>,
    ) -> Self {
        BoostedClassifier {
            positions,
            thresholds,
            weights,
        }
    }

    /// Returns the score of the window at this position; `None` if it is not a face.
    pub(super) fn score(&self, features: &Features, left: usize, top: usize) -> Option<f32> {
        let mut score = 0.0;
        let groups = self.positions.chunks_exact(GROUP);
        let weights = self.weights.chunks_exact(GROUP * 256);
        let last = self.thresholds.chunks_exact(GROUP).map(|of| of[GROUP - 1]);
        for ((positions, weights), threshold) in groups.zip(weights).zip(last) {
            for ((column, row), weights) in positions.iter().zip(weights.chunks_exact(256)) {
                let bits = features.bits[(top + row) * features.width + left + column];
                score += weights[usize::from(bits)];
            }
            if score < threshold {
                return None;
            }
        }
        features.varies(left, top).then_some(score)
    }
}
