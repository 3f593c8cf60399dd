//! Convolutions of 3×3 with stride 1 and padding 1 by Winograd's minimal filtering F(2×2, 3×3)
//! (Lavin and Gray, 2015, arXiv:1509.09308, section 4.1).
//!
//! Each tile of 4×4 pixels is transformed, multiplied by a filter that was transformed in advance,
//! and transformed back into 2×2 pixels of the output: 16 multiplications instead of 36. A block of
//! tiles stays in the CPU's cache from its transform to its pixels. Transforms and sums are in f32
//! or in f16, depending on the arithmetic.

#![expect(
    unsafe_code,
    reason = "it passes pointers to the vector kernels and upholds their contracts"
)]

use std::cell::RefCell;

use super::{
    format::Arithmetic,
    kernel::{Finish, PANEL, ROWS, Rows, Turn},
    memory::{Aligned, BORDER, Shared},
    pack, pack_plain,
    threads::Threads,
    tiles::ELEMENTS,
};

/// A transformed 3×3 filter and its bias.
#[derive(Debug, Clone)]
pub(super) struct Filter {
    arithmetic: Arithmetic,
    /// `[outputs / PANEL][16]` panels of `inputs` rows.
    panels: Aligned<u16>,
    bias: Aligned<u16>,
    inputs: usize,
    outputs: usize,
}

/// Images `[count, side, side, channels]` in the format of the filter.
#[derive(Debug, Clone, Copy)]
pub(super) struct Images<'a> {
    pub(super) pixels: &'a [u16],
    pub(super) count: usize,
    pub(super) side: usize,
}

impl<'a> Images<'a> {
    pub(super) fn new(pixels: &'a [u16], count: usize, side: usize) -> Self {
        Images {
            pixels,
            count,
            side,
        }
    }
}

/// Buffers that a thread reuses for each block.
#[derive(Debug)]
struct Scratch {
    tiles: Aligned<u16>,
    /// Sums of the arithmetic, of one or two units each.
    products: Aligned<u16>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = const {
        RefCell::new(Scratch { tiles: Aligned::new(), products: Aligned::new() })
    };
}

impl Filter {
    /// An empty filter without a bias, which [`super::pack`] fills in every training step.
    pub(super) fn empty(arithmetic: Arithmetic, inputs: usize, outputs: usize) -> Self {
        Filter {
            arithmetic,
            panels: Aligned::zeros(ELEMENTS * inputs * outputs * arithmetic.filter_width()),
            bias: arithmetic.sums(&vec![0.0; outputs]),
            inputs,
            outputs,
        }
    }

    pub(super) fn panels_mut(&mut self) -> &mut [u16] {
        self.panels.as_mut_slice()
    }

    /// Transforms a filter `[outputs, 9, inputs]` of multiples of 64 and 32 channels, with a bias
    /// `[outputs]`.
    pub(super) fn new(
        arithmetic: Arithmetic,
        weight: &[f32],
        bias: &[f32],
        inputs: usize,
        threads: &Threads,
    ) -> Self {
        let arithmetic = arithmetic.of_winograd(inputs);
        let mut made = Filter {
            bias: arithmetic.sums(bias),
            ..Filter::empty(arithmetic, inputs, bias.len())
        };
        let panels = made.panels_mut();
        match arithmetic {
            Arithmetic::F16 | Arithmetic::F32(..) => {
                pack_plain::winograd(arithmetic, weight, inputs, threads, panels);
            }
            Arithmetic::Bf16 | Arithmetic::EmulatedBf16 | Arithmetic::Mixed => {
                pack::winograd(
                    arithmetic.has_f16_factors(),
                    weight,
                    inputs,
                    threads,
                    panels,
                );
            }
        }
        made
    }

    /// Returns whether its format holds all its values.
    pub(super) fn fits(&self) -> bool {
        self.arithmetic.holds(self.panels.as_slice())
    }

    pub(super) fn outputs(&self) -> usize {
        self.outputs
    }

    /// Units of 16 bits of a pixel of the output.
    pub(super) fn places(&self) -> usize {
        self.outputs * self.arithmetic.width()
    }

    /// Convolves into images of the same size, adds the bias and the residual (images of the
    /// output's shape), and applies ReLU if requested.
    ///
    /// # Panics
    /// If the size of a buffer does not match the others.
    pub(super) fn convolve(
        &self,
        images: Images<'_>,
        residual: Option<&[u16]>,
        relu: bool,
        threads: &Threads,
        out: &mut [u16],
    ) {
        let Images {
            pixels,
            count,
            side,
        } = images;
        let width = self.arithmetic.width();
        assert_eq!(pixels.len(), count * side * side * self.inputs * width);
        assert_eq!(out.len(), count * side * side * self.outputs * width);
        assert!(residual.is_none_or(|residual| residual.len() == out.len()));
        let scale = self.arithmetic.scale_of(pixels, threads);
        let grid = Grid::new(count, side);
        let all = grid.all();
        let panels = self.outputs / PANEL;
        let block = block_size(self.inputs, all, threads.count());
        let blocks = all.div_ceil(block);
        // With few blocks, each job computes a part of the panels and transforms the tiles itself.
        let groups = threads.parts_of(blocks).min(panels);
        let group = panels.div_ceil(groups);
        let out = Shared::new(out);
        threads.for_each(blocks * groups, |job| {
            let first = job / groups * block;
            let tiles = first..all.min(first + block);
            let begin = job % groups * group;
            let wanted = begin..panels.min(begin + group);
            SCRATCH.with_borrow_mut(|scratch| {
                let block = Block {
                    tiles,
                    panels: wanted,
                    residual,
                    relu,
                    scale,
                };
                self.block(&grid, pixels, block, out, scratch);
            });
        });
    }

    fn block(
        &self,
        grid: &Grid,
        pixels: &[u16],
        block: Block<'_>,
        out: Shared<'_, u16>,
        scratch: &mut Scratch,
    ) {
        let Block {
            tiles,
            panels,
            residual,
            relu,
            scale,
        } = block;
        let count = tiles.len();
        let width = self.arithmetic.width();
        // Values of an element of all tiles.
        let stride = count * self.inputs;
        scratch.tiles.resize(ELEMENTS * stride * width);
        // Units of 16 bits of a row of sums.
        let of_row = PANEL * self.arithmetic.sum_width();
        scratch.products.resize(ELEMENTS * count * of_row);
        let transformed = scratch.tiles.as_mut_slice().as_mut_ptr();
        for (row, tile) in tiles.clone().enumerate() {
            let sources = grid.sources(tile, pixels, self.inputs * width);
            // SAFETY: a network exists only where the instructions are available; each source has
            // `inputs` values, and the scratch has room.
            unsafe {
                self.arithmetic.transform_input(
                    &sources,
                    self.inputs,
                    scale,
                    transformed.add(row * self.inputs * width),
                    stride,
                );
            }
        }
        let products = scratch.products.as_mut_slice().as_mut_ptr();
        for panel in panels {
            for element in 0..ELEMENTS {
                let length = self.inputs * PANEL * self.arithmetic.filter_width();
                let at = (panel * ELEMENTS + element) * length;
                let factors = &self.panels.as_slice()[at..at + length];
                for row in (0..count).step_by(ROWS) {
                    let rows = ROWS.min(count - row);
                    // SAFETY: row and products are within the scratch, and the panel has `inputs`
                    // rows of 64 values.
                    unsafe {
                        let mut starts = [std::ptr::null::<u16>(); ROWS];
                        for (place, start) in starts.iter_mut().enumerate().take(rows) {
                            let at = element * stride + (row + place) * self.inputs;
                            *start = transformed.add(at * width).cast_const();
                        }
                        let rows = Rows {
                            taps: &[starts],
                            count: rows,
                            pairs: self.inputs / 2,
                            step: 2,
                            turn: Some(Turn {
                                number: row / ROWS,
                                count: count.div_ceil(ROWS),
                            }),
                        };
                        let target = products.add((element * count + row) * of_row);
                        self.arithmetic
                            .product(rows, factors.as_ptr(), scale, target, PANEL);
                    }
                }
            }
            let finish = Finish {
                bias: self.bias.as_slice()[panel * of_row..][..of_row].as_ptr(),
                relu,
            };
            for (row, tile) in tiles.clone().enumerate() {
                let (mut added, mut targets) = ([std::ptr::null(); 4], [std::ptr::null_mut(); 4]);
                for (place, pixel) in grid.targets(tile).into_iter().enumerate() {
                    let Some(pixel) = pixel else { continue };
                    let at = (pixel * self.outputs + panel * PANEL) * width;
                    targets[place] = out.place(at, PANEL * width);
                    if let Some(residual) = residual {
                        added[place] = residual[at..at + PANEL * width].as_ptr();
                    }
                }
                // SAFETY: each target holds a panel, and no other job has this tile and panel.
                unsafe {
                    self.arithmetic.transform_output(
                        products.add(row * of_row),
                        count * PANEL,
                        finish,
                        &added,
                        &targets,
                    );
                }
            }
        }
    }
}

/// The work of a job.
#[derive(Debug)]
struct Block<'a> {
    tiles: std::ops::Range<usize>,
    panels: std::ops::Range<usize>,
    residual: Option<&'a [u16]>,
    relu: bool,
    /// Scale of the factors.
    scale: f32,
}

/// Tiles of a block: few enough that their transforms and products stay in the second-level cache
/// and that all threads have blocks. f32 has the same number although it needs twice the room,
/// because a panel, which is read once for each block, is twice as large too.
fn block_size(inputs: usize, all: usize, threads: usize) -> usize {
    const CACHE: usize = 512 * 1_024;
    const MOST: usize = 10 * ROWS;
    let fitting = CACHE / (ELEMENTS * 2 * inputs) / ROWS * ROWS;
    let shared = all.div_ceil(threads).div_ceil(ROWS) * ROWS;
    let most = fitting.clamp(ROWS, MOST).min(shared.max(4 * ROWS));
    // Equal blocks, instead of a small one after large ones.
    all.div_ceil(all.div_ceil(most)).next_multiple_of(ROWS)
}

/// The arrangement of tiles over the images.
#[derive(Debug)]
pub(super) struct Grid {
    count: usize,
    side: usize,
    /// Tiles in a row.
    tiles: usize,
}

impl Grid {
    pub(super) fn new(count: usize, side: usize) -> Self {
        Grid {
            count,
            side,
            tiles: side.div_ceil(2),
        }
    }

    /// Tiles of all images.
    pub(super) fn all(&self) -> usize {
        self.count * self.tiles * self.tiles
    }

    fn position(&self, tile: usize) -> (usize, usize, usize) {
        let image = tile / (self.tiles * self.tiles);
        debug_assert!(image < self.count);
        let (y, x) = (tile / self.tiles % self.tiles, tile % self.tiles);
        (image, 2 * y, 2 * x)
    }

    /// The 4×4 pixels around a tile, of `width` units each.
    pub(super) fn sources(&self, tile: usize, pixels: &[u16], places: usize) -> [*const u16; 16] {
        let (image, y, x) = self.position(tile);
        let mut sources = [BORDER.as_ptr(); 16];
        for (place, source) in sources.iter_mut().enumerate() {
            // One more pixel on each side of the tile.
            let (y, x) = (
                (y + place / 4).wrapping_sub(1),
                (x + place % 4).wrapping_sub(1),
            );
            if y < self.side && x < self.side {
                let at = ((image * self.side + y) * self.side + x) * places;
                *source = pixels[at..at + places].as_ptr();
            }
        }
        sources
    }

    /// The indices of a tile's 2×2 pixels that are within the image.
    pub(super) fn targets(&self, tile: usize) -> [Option<usize>; 4] {
        let (image, y, x) = self.position(tile);
        std::array::from_fn(|place| {
            let (y, x) = (y + place / 2, x + place % 2);
            (y < self.side && x < self.side).then(|| (image * self.side + y) * self.side + x)
        })
    }
}
