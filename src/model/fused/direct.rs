//! Convolutions with stride 2 as products of the pixels under each tap of the filter with the tap's
//! panel, and their backward pass.

#![expect(
    unsafe_code,
    reason = "it hands pointers to the vector kernels, whose promises it keeps"
)]

use super::{
    format::Arithmetic,
    kernel::{Finish, PANEL, ROWS, Rows, Turn},
    memory::{Aligned, BORDER, Shared},
    pack, pack_plain,
    threads::Threads,
    winograd::Images,
};

/// Rows of output pixels for which a panel is read from the outer caches once.
const BLOCK: usize = 8 * ROWS;

/// A square filter with stride 2 and its bias.
#[derive(Debug, Clone)]
pub(super) struct Filter {
    arithmetic: Arithmetic,
    /// `[outputs / PANEL][taps]` panels of `inputs` rows.
    panels: Aligned<u16>,
    bias: Aligned<u16>,
    inputs: usize,
    outputs: usize,
    /// 3 or 1.
    width: usize,
}

impl Filter {
    /// Arranges a filter `[outputs, width * width, inputs]` with a bias `[outputs]`. A filter of
    /// width 3 has a padding of 1, one of width 1 has none.
    pub(super) fn new(
        arithmetic: Arithmetic,
        weight: &[f32],
        bias: &[f32],
        inputs: usize,
        width: usize,
        threads: &Threads,
    ) -> Self {
        let arithmetic = arithmetic.with_exact_filters();
        let mut made = Filter {
            bias: arithmetic.sums(bias),
            ..Filter::empty(arithmetic, inputs, bias.len(), width)
        };
        let (taps, panels) = (width * width, made.panels_mut());
        match arithmetic {
            Arithmetic::F16 | Arithmetic::F32(..) => {
                if width == 1 {
                    pack_plain::direct::<1>(arithmetic, weight, inputs, threads, panels);
                } else {
                    pack_plain::direct::<9>(arithmetic, weight, inputs, threads, panels);
                }
            }
            Arithmetic::Bf16 | Arithmetic::EmulatedBf16 | Arithmetic::Mixed => {
                pack::direct(
                    arithmetic.has_f16_factors(),
                    weight,
                    inputs,
                    taps,
                    threads,
                    panels,
                );
            }
        }
        made
    }

    /// An empty filter without a bias, which [`super::pack`] fills in every training step.
    pub(super) fn empty(
        arithmetic: Arithmetic,
        inputs: usize,
        outputs: usize,
        width: usize,
    ) -> Self {
        Filter {
            arithmetic,
            panels: Aligned::zeros(inputs * outputs * width * width * arithmetic.width()),
            bias: arithmetic.sums(&vec![0.0; outputs]),
            inputs,
            outputs,
            width,
        }
    }

    pub(super) fn panels_mut(&mut self) -> &mut [u16] {
        self.panels.as_mut_slice()
    }

    /// Convolves factors into images of half the side, rounded up, divides by the factors' scale,
    /// adds the bias, and applies ReLU if requested.
    ///
    /// # Panics
    /// If the size of a buffer does not match the others.
    pub(super) fn convolve(
        &self,
        images: Images<'_>,
        scale: f32,
        relu: bool,
        threads: &Threads,
        out: &mut [u16],
    ) {
        let side = images.side.div_ceil(2);
        let all = images.count * side * side;
        // Units of 16 bits of a value.
        let width = self.arithmetic.width();
        assert_eq!(
            images.pixels.len(),
            images.count * images.side * images.side * self.inputs * width
        );
        assert_eq!(out.len(), all * self.outputs * width);
        let (blocks, panels) = (all.div_ceil(BLOCK), self.outputs / PANEL);
        let groups = threads.parts_of(blocks).min(panels);
        let group = panels.div_ceil(groups);
        let taps = self.width * self.width;
        let of_row = PANEL * self.arithmetic.sum_width();
        let out = Shared::new(out);
        threads.for_each(blocks * groups, |job| {
            let first = job / groups * BLOCK;
            let pixels = first..all.min(first + BLOCK);
            let begin = job % groups * group;
            for panel in begin..panels.min(begin + group) {
                let length = taps * self.inputs * PANEL * width;
                let factors = &self.panels.as_slice()[panel * length..(panel + 1) * length];
                let finish = Finish {
                    bias: self.bias.as_slice()[panel * of_row..][..of_row].as_ptr(),
                    relu,
                };
                for row in pixels.clone().step_by(ROWS) {
                    let rows = ROWS.min(pixels.end - row);
                    let mut sources = [[BORDER.as_ptr(); ROWS]; 9];
                    let mut targets = [std::ptr::null_mut(); ROWS];
                    for place in 0..rows {
                        let pixel = row + place;
                        let at = (pixel * self.outputs + panel * PANEL) * width;
                        targets[place] = out.place(at, PANEL * width);
                        for (tap, sources) in sources.iter_mut().enumerate().take(taps) {
                            if let Some(source) = self.source(images, side, pixel, tap) {
                                sources[place] = source.as_ptr();
                            }
                        }
                    }
                    let rows = Rows {
                        taps: &sources[..taps],
                        count: rows,
                        pairs: self.inputs / 2,
                        step: 2,
                        turn: Some(Turn {
                            number: (row - first) / ROWS,
                            count: pixels.len().div_ceil(ROWS),
                        }),
                    };
                    // SAFETY: a network exists only where the instructions are available; sources
                    // hold `inputs` values, targets a panel each, and no other job has these pixels
                    // and this panel.
                    unsafe {
                        self.arithmetic.finished_product(
                            rows,
                            factors.as_ptr(),
                            scale,
                            finish,
                            &targets,
                        );
                    }
                }
            }
        });
    }

    /// The channels of the pixel under a tap; `None` outside the border.
    pub(super) fn source<'a>(
        &self,
        images: Images<'a>,
        side: usize,
        pixel: usize,
        tap: usize,
    ) -> Option<&'a [u16]> {
        let padding = self.width / 2;
        let image = pixel / (side * side);
        let (y, x) = (pixel / side % side, pixel % side);
        let y = (2 * y + tap / self.width).wrapping_sub(padding);
        let x = (2 * x + tap % self.width).wrapping_sub(padding);
        let inside = y < images.side && x < images.side;
        inside.then(|| {
            let places = self.inputs * self.arithmetic.width();
            let at = ((image * images.side + y) * images.side + x) * places;
            &images.pixels[at..at + places]
        })
    }
}

/// The backward pass of a block's two convolutions with stride 2, 3×3 and 1×1, from the gradients
/// of their outputs to that of their common input.
#[derive(Debug)]
pub(super) struct Backward {
    arithmetic: Arithmetic,
    /// `[inputs / PANEL][10][outputs / 2][PANEL][2]`, with the taps in the order of [`TAPS`].
    panels: Aligned<u16>,
    /// Zeros.
    bias: Aligned<u16>,
    inputs: usize,
    outputs: usize,
    factors: [Aligned<u16>; 2],
}

/// The source of a contribution to a pixel of the input: a tap of the larger filter, row and
/// column, or the smaller filter.
#[derive(Debug, Clone, Copy)]
enum Tap {
    Of([usize; 2]),
    Shortcut,
}

/// The taps that reach a pixel depend on the parity of its row and column: each of these four
/// parities has its taps adjacent.
const TAPS: [Tap; 10] = [
    Tap::Of([1, 1]),
    Tap::Shortcut,
    Tap::Of([1, 0]),
    Tap::Of([1, 2]),
    Tap::Of([0, 1]),
    Tap::Of([2, 1]),
    Tap::Of([0, 0]),
    Tap::Of([0, 2]),
    Tap::Of([2, 0]),
    Tap::Of([2, 2]),
];
/// The taps of the pixels with an even or odd row, then an even or odd column.
const TAPS_OF: [[std::ops::Range<usize>; 2]; 2] = [[0..2, 2..4], [4..6, 6..10]];

impl Backward {
    pub(super) fn new(arithmetic: Arithmetic, inputs: usize, outputs: usize) -> Self {
        Backward {
            arithmetic,
            panels: Aligned::zeros(TAPS.len() * inputs * outputs),
            bias: arithmetic.sums(&vec![0.0; inputs]),
            inputs,
            outputs,
            factors: [const { Aligned::new() }; 2],
        }
    }

    /// Arranges filters `[outputs, 9, inputs]` and `[outputs, 1, inputs]`.
    pub(super) fn load(&mut self, weight: &[f32], shortcut: &[f32], threads: &Threads) {
        let taps = TAPS.map(|tap| match tap {
            Tap::Of([y, x]) => pack::Tap {
                weight,
                count: 9,
                tap: 3 * y + x,
            },
            Tap::Shortcut => pack::Tap {
                weight: shortcut,
                count: 1,
                tap: 0,
            },
        });
        let in_f16 = self.arithmetic.has_f16_factors();
        let (inputs, outputs) = (self.inputs, self.outputs);
        let panels = self.panels.as_mut_slice();
        pack::direct_backward(in_f16, &taps, inputs, outputs, threads, panels);
    }

    /// Computes the gradient of `count` images of this side, `[count, side, side, inputs]`, from
    /// those of the two filters' outputs.
    ///
    /// # Panics
    /// If the size of a buffer does not match the others.
    pub(super) fn convolve(
        &mut self,
        [gradient, shortcut]: [&[u16]; 2],
        count: usize,
        side: usize,
        threads: &Threads,
        out: &mut [u16],
    ) {
        let half = side.div_ceil(2);
        assert_eq!(gradient.len(), count * half * half * self.outputs);
        assert_eq!(shortcut.len(), gradient.len());
        assert_eq!(out.len(), count * side * side * self.inputs);
        // The products of both are added, so they share one scale.
        let scale_of = |values| self.arithmetic.scale_of(values, threads);
        let scale = scale_of(gradient).min(scale_of(shortcut));
        let [room, other_room] = &mut self.factors;
        let arithmetic = self.arithmetic;
        let factors = [
            arithmetic.factors_of_scale(gradient, scale, threads, room),
            arithmetic.factors_of_scale(shortcut, scale, threads, other_room),
        ];
        let out = Shared::new(out);
        let panels = self.panels.as_slice();
        for (odd_row, taps) in TAPS_OF.iter().enumerate() {
            for (odd_column, taps) in taps.iter().enumerate() {
                let kind = Kind {
                    odd: [odd_row, odd_column],
                    taps: taps.clone(),
                    side,
                };
                let all = count * kind.rows() * kind.columns();
                threads.for_each(all.div_ceil(BLOCK), |block| {
                    let pixels = block * BLOCK..all.min((block + 1) * BLOCK);
                    for panel in 0..self.inputs / PANEL {
                        let begin = panel * TAPS.len() + kind.taps.start;
                        let panels = &panels[begin * self.outputs * PANEL..]
                            [..kind.taps.len() * self.outputs * PANEL];
                        let finish = Finish {
                            bias: self.bias.as_slice()[..PANEL * arithmetic.sum_width()].as_ptr(),
                            relu: false,
                        };
                        for first in pixels.clone().step_by(ROWS) {
                            let rows = ROWS.min(pixels.end - first);
                            let mut sources = [[BORDER.as_ptr(); ROWS]; 4];
                            let mut targets = [std::ptr::null_mut(); ROWS];
                            for place in 0..rows {
                                let (image, y, x) = kind.pixel(first + place);
                                let at = ((image * side + y) * side + x) * self.inputs;
                                targets[place] = out.place(at + panel * PANEL, PANEL);
                                for (sources, tap) in
                                    sources.iter_mut().zip(&TAPS[kind.taps.clone()])
                                {
                                    if let Some((which, y, x)) = tap.source(y, x, half) {
                                        let at = (image * half + y) * half + x;
                                        sources[place] = factors[which][at * self.outputs..]
                                            [..self.outputs]
                                            .as_ptr();
                                    }
                                }
                            }
                            let rows = Rows {
                                taps: &sources[..kind.taps.len()],
                                count: rows,
                                pairs: self.outputs / 2,
                                step: 2,
                                turn: None,
                            };
                            // SAFETY: as in `Filter::convolve`, with inputs and outputs exchanged.
                            unsafe {
                                arithmetic.finished_product(
                                    rows,
                                    panels.as_ptr(),
                                    scale,
                                    finish,
                                    &targets,
                                );
                            }
                        }
                    }
                });
            }
        }
    }
}

/// The pixels of one parity of row and column.
#[derive(Debug, Clone)]
struct Kind {
    odd: [usize; 2],
    taps: std::ops::Range<usize>,
    side: usize,
}

impl Kind {
    fn rows(&self) -> usize {
        (self.side + 1 - self.odd[0]) / 2
    }

    fn columns(&self) -> usize {
        (self.side + 1 - self.odd[1]) / 2
    }

    /// Image, row and column of a pixel.
    fn pixel(&self, number: usize) -> (usize, usize, usize) {
        let (rows, columns) = (self.rows(), self.columns());
        let image = number / (rows * columns);
        let (y, x) = (number / columns % rows, number % columns);
        (image, 2 * y + self.odd[0], 2 * x + self.odd[1])
    }
}

impl Tap {
    /// The gradient, and the row and column in it, that contributes to a pixel; `None` outside the
    /// border.
    fn source(self, y: usize, x: usize, half: usize) -> Option<(usize, usize, usize)> {
        match self {
            Tap::Shortcut => Some((1, y / 2, x / 2)),
            Tap::Of([row, column]) => {
                // The tap is at pixel 2 · output + tap - 1.
                let (y, x) = (
                    (y + 1).wrapping_sub(row) / 2,
                    (x + 1).wrapping_sub(column) / 2,
                );
                (y < half && x < half).then_some((0, y, x))
            }
        }
    }
}
