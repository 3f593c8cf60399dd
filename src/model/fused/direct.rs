//! Convolutions with stride 2, as products of the pixels under each tap of the filter with the tap's panel.

#![expect(
    unsafe_code,
    reason = "it hands pointers to the vector kernels, whose promises it keeps"
)]

use super::{
    format::Arithmetic,
    kernel::{Finish, PANEL, ROWS, Rows},
    memory::{Aligned, BORDER, Shared},
    pack, pack_f16,
    threads::Threads,
    winograd::Images,
};

/// Rows of output pixels at once, for which a panel is read from the outer caches once.
const BLOCK: usize = 8 * ROWS;

/// A square filter with stride 2 and the bias behind it.
#[derive(Debug, Clone)]
pub(super) struct Filter {
    arithmetic: Arithmetic,
    /// `[outputs / PANEL][taps][inputs / 2][PANEL][2]`.
    panels: Aligned<u16>,
    bias: Aligned<u16>,
    inputs: usize,
    outputs: usize,
    /// 3 or 1.
    width: usize,
}

impl Filter {
    /// Arranges a filter `[outputs, width * width, inputs]` with a bias `[outputs]`; a filter of 3 has a padding of 1, one of 1 none.
    pub(super) fn new(
        arithmetic: Arithmetic,
        weight: &[f32],
        bias: &[f32],
        inputs: usize,
        width: usize,
        threads: &Threads,
    ) -> Self {
        let mut made = Filter {
            bias: arithmetic.sums(bias),
            ..Filter::empty(arithmetic, inputs, bias.len(), width)
        };
        let (taps, panels) = (width * width, made.panels_mut());
        match arithmetic {
            Arithmetic::F16 => pack_f16::direct(weight, inputs, taps, threads, panels),
            Arithmetic::Bf16 | Arithmetic::Mixed => {
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

    /// Room for a filter without a bias, which [`super::pack`] fills anew in every step of a training.
    pub(super) fn empty(
        arithmetic: Arithmetic,
        inputs: usize,
        outputs: usize,
        width: usize,
    ) -> Self {
        Filter {
            arithmetic,
            panels: Aligned::zeros(inputs * outputs * width * width),
            bias: arithmetic.sums(&vec![0.0; outputs]),
            inputs,
            outputs,
            width,
        }
    }

    pub(super) fn panels_mut(&mut self) -> &mut [u16] {
        self.panels.as_mut_slice()
    }

    /// Convolves factors into images of half the side, rounded up, divided by the factors' scale, adds the bias, and rectifies if asked to.
    ///
    /// # Panics
    /// When a buffer does not have the size that the others ask for.
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
        assert_eq!(
            images.pixels.len(),
            images.count * images.side * images.side * self.inputs
        );
        assert_eq!(out.len(), all * self.outputs);
        let (blocks, panels) = (all.div_ceil(BLOCK), self.outputs / PANEL);
        let groups = threads.count().div_ceil(blocks).clamp(1, panels);
        let group = panels.div_ceil(groups);
        let taps = self.width * self.width;
        let of_row = PANEL * self.arithmetic.sum_width();
        let out = Shared::new(out);
        threads.for_each(blocks * groups, |job| {
            let first = job / groups * BLOCK;
            let pixels = first..all.min(first + BLOCK);
            let begin = job % groups * group;
            for panel in begin..panels.min(begin + group) {
                let length = taps * self.inputs * PANEL;
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
                        targets[place] = out.place(pixel * self.outputs + panel * PANEL, PANEL);
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
                    };
                    // SAFETY: the network is made only where the instructions are available; sources hold `inputs` values, targets a panel each, and no
                    // other job has these pixels and this panel.
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

    /// The channels of the pixel under a tap; `None` beyond the border.
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
            let at = ((image * images.side + y) * images.side + x) * self.inputs;
            &images.pixels[at..at + self.inputs]
        })
    }
}
