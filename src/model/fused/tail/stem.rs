//! The trainable stem: 7×7 convolution with stride 2, BatchNorm, ReLU and 3×3 max pooling with
//! stride 2, forward and backward.

#![expect(
    unsafe_code,
    reason = "vector instructions work on pointers; a network exists only where the CPU has them"
)]

use std::{
    arch::x86_64::{
        __m256i, _mm256_loadu_si256, _mm256_storeu_si256, _mm512_add_ps, _mm512_cmpeq_epi16_mask,
        _mm512_cmpgt_epu16_mask, _mm512_cvtepi16_epi8, _mm512_cvtepu8_epi16, _mm512_fmadd_ps,
        _mm512_loadu_ps, _mm512_loadu_si512, _mm512_mask_mov_epi16, _mm512_maskz_mov_epi16,
        _mm512_max_ps, _mm512_set1_epi16, _mm512_setzero_ps, _mm512_setzero_si512,
        _mm512_storeu_si512,
    },
    cell::RefCell,
    collections::BTreeMap,
    ops::Range,
};

use tch::Tensor;

use super::{
    super::{
        super::Error,
        format::Arithmetic,
        gradient::{interleave, rows_of},
        kernel::{CHUNK, PANEL, ROWS, Rows},
        memory::{Aligned, BORDER, Shared},
        norm::rectify_backward,
        stem::{self, CHANNELS, ROW, WIDTH, pad, padded_width, pooled_side},
        vectors,
        winograd::Images,
    },
    parts::{Norm, ParameterRanges, Step},
};

/// Pixels of a pooling window.
const WINDOW: usize = 9;
const LANES: usize = 16;

/// The stem, with the results of the forward pass that its backward pass needs.
#[derive(Debug)]
pub(super) struct Stem {
    arithmetic: Arithmetic,
    weight: Range<usize>,
    filter: stem::Stem,
    norm: Norm,
    /// Output of the convolution, `[count, half, half, 64]`.
    convolved: Aligned<u16>,
    /// `[count, pooled, pooled, 64]`.
    output: Aligned<u16>,
    /// The position in the window of the maximum, the first if several are equal.
    largest: Aligned<u8>,
    /// Gradient of the convolution's output.
    gradient: Aligned<u16>,
    /// Gradient of the filter, for each part of the images: `[part][7][21][64]`.
    sums: Aligned<f32>,
    count: usize,
    side: usize,
}

thread_local! {
    static PADDED: RefCell<Aligned<u16>> = const { RefCell::new(Aligned::new()) };
    /// Pairs of pixels of an image, and of a row of the gradient.
    static PAIRS: RefCell<(Aligned<u16>, Aligned<u16>)> =
        const { RefCell::new((Aligned::new(), Aligned::new())) };
}

impl Stem {
    pub(super) fn new(
        arithmetic: Arithmetic,
        places: &ParameterRanges,
        state: &BTreeMap<String, Tensor>,
    ) -> Self {
        Stem {
            arithmetic,
            weight: places.of("conv1.weight"),
            filter: stem::Stem::empty(arithmetic),
            norm: Norm::new(places, state, "bn1"),
            convolved: Aligned::new(),
            output: Aligned::new(),
            largest: Aligned::new(),
            gradient: Aligned::new(),
            sums: Aligned::new(),
            count: 0,
            side: 0,
        }
    }

    /// Arranges the parameters for the next forward passes.
    pub(super) fn load(&mut self, step: Step<'_>) {
        self.filter.load(&step.parameters[self.weight.clone()]);
    }

    /// Output of the latest forward pass.
    pub(super) fn output(&self) -> Images<'_> {
        Images {
            pixels: self.output.as_slice(),
            count: self.count,
            side: pooled_side(self.side),
        }
    }

    /// Processes normalised images `[3, side, side]` each.
    ///
    /// # Errors
    /// Out of memory, or a failure of libtorch.
    pub(super) fn forward(
        &mut self,
        images: &[&[f32]],
        side: usize,
        step: Step<'_>,
    ) -> Result<(), Error> {
        (self.count, self.side) = (images.len(), side);
        let (half, pooled) = (side.div_ceil(2), pooled_side(side));
        let of_convolution = self.count * half * half * PANEL;
        self.convolved.try_resize(of_convolution)?;
        if step.mode.is_training() {
            self.gradient.try_resize(of_convolution)?;
        }
        let (arithmetic, filter) = (self.arithmetic, &self.filter);
        let bands = step.threads.parts_of(self.count).min(half);
        let band = half.div_ceil(bands);
        let out = Shared::new(self.convolved.as_mut_slice());
        step.threads.for_each(self.count * bands, |job| {
            let (image, first) = (job / bands, job % bands * band);
            let rows = first.min(half)..half.min(first + band);
            PADDED.with_borrow_mut(|padded| {
                pad(arithmetic, images[image], side, &rows, padded);
                let rows = image * half + rows.start..image * half + rows.end;
                filter.convolve(padded.as_slice(), side, false, out, rows);
            });
        });
        self.norm.observe(self.convolved.as_slice(), step)?;
        let affine = self.norm.affine(step.parameters);
        let (scale, shift) = self.norm.statistics().scale_and_shift(affine);
        let length = self.count * pooled * pooled * PANEL;
        self.output.try_resize(length)?;
        self.largest.try_resize(length)?;
        let (out, largest) = (
            Shared::new(self.output.as_mut_slice()),
            Shared::new(self.largest.as_mut_slice()),
        );
        let convolved = self.convolved.as_slice();
        step.threads.for_each(self.count * pooled, |job| {
            let (image, y) = (job / pooled, job % pooled);
            for x in 0..pooled {
                let mut sources = [std::ptr::null(); WINDOW];
                for (place, source) in sources.iter_mut().enumerate() {
                    let (y, x) = (
                        (2 * y + place / 3).wrapping_sub(1),
                        (2 * x + place % 3).wrapping_sub(1),
                    );
                    if y < half && x < half {
                        let at = ((image * half + y) * half + x) * PANEL;
                        *source = convolved[at..at + PANEL].as_ptr();
                    }
                }
                let at = (job * pooled + x) * PANEL;
                let (out, largest) = (out.place(at, PANEL), largest.place(at, PANEL));
                // SAFETY: pointers that are not null hold 64 values, and no other job has this
                // pixel.
                unsafe { pool(&sources, &scale, &shift, out, largest) };
            }
        });
        Ok(())
    }

    /// Propagates the gradient of the output, which it overwrites, to the parameters.
    pub(super) fn backward(
        &mut self,
        images: &[&[f32]],
        step: Step<'_>,
        gradient: &mut [u16],
        out: &mut [f32],
    ) {
        let (side, half, pooled) = (self.side, self.side.div_ceil(2), pooled_side(self.side));
        rectify_backward(self.output.as_slice(), step.threads, gradient);
        self.gradient.resize(self.convolved.as_slice().len());
        let (gradient, largest) = (&*gradient, self.largest.as_slice());
        let spread = Shared::new(self.gradient.as_mut_slice());
        step.threads.for_each(self.count * half, |job| {
            let (image, y) = (job / half, job % half);
            for x in 0..half {
                let mut sources = [(0, 0); 4];
                let mut found = 0;
                // Window position `place` of pooled row y' is row 2 · y' + place - 1.
                for row in (y / 2)..=(y.div_ceil(2)).min(pooled - 1) {
                    for column in (x / 2)..=(x.div_ceil(2)).min(pooled - 1) {
                        let place = (y + 1 - 2 * row) * 3 + (x + 1 - 2 * column);
                        sources[found] =
                            (((image * pooled + row) * pooled + column) * PANEL, place);
                        found += 1;
                    }
                }
                let target = spread.place((job * half + x) * PANEL, PANEL);
                // SAFETY: the pooled pixels hold 64 values each, and no other job has this pixel.
                unsafe { unpool(gradient, largest, &sources[..found], target) };
            }
        });
        let convolved = self.convolved.as_slice();
        self.norm
            .backward(convolved, step, self.gradient.as_mut_slice(), out);
        self.filter_gradient(images, side, step, &mut out[self.weight.clone()]);
    }

    /// Computes the gradient of the filter, `[64, 7, 7, 3]`, from the images and the gradient of
    /// the convolution's output. Both factors are arranged in pairs of neighbouring pixels of a
    /// row.
    fn filter_gradient(&mut self, images: &[&[f32]], side: usize, step: Step<'_>, out: &mut [f32]) {
        let half = side.div_ceil(2);
        let (arithmetic, threads) = (self.arithmetic, step.threads);
        let gradient = self.gradient.as_slice();
        let scale = arithmetic.scale_of(gradient, threads);
        let in_f16 = arithmetic.has_f16_factors();
        let pairs = half.div_ceil(2);
        let parts = threads.count().min(self.count);
        let part = self.count.div_ceil(parts);
        let all = WIDTH * ROW * PANEL;
        self.sums.resize(parts * all);
        let sums = self.sums.as_mut_slice();
        sums.fill(0.0);
        let shared = Shared::new(sums);
        threads.for_each(parts, |number| {
            let mine = number * part..self.count.min((number + 1) * part);
            for (index, image) in images.iter().enumerate().skip(mine.start).take(mine.len()) {
                PADDED.with_borrow_mut(|padded| {
                    PAIRS.with_borrow_mut(|(of_image, of_gradient)| {
                        pad(arithmetic, image, side, &(0..half), padded);
                        pair_pixels(padded.as_slice(), side, of_image);
                        of_gradient.resize(pairs * 2 * PANEL);
                        for y in 0..half {
                            let row = (index * half + y) * half;
                            let pixel = |x: usize| match x < half {
                                true => gradient[(row + x) * PANEL..][..PANEL].as_ptr(),
                                false => BORDER.as_ptr(),
                            };
                            let panel = Shared::new(of_gradient.as_mut_slice());
                            for pair in 0..pairs {
                                let both = [pixel(2 * pair), pixel(2 * pair + 1)];
                                let at = |group: usize| {
                                    panel.place(pair * 2 * PANEL + group * CHUNK, CHUNK)
                                };
                                // SAFETY: both hold 64 values, and the panel is this thread's.
                                unsafe {
                                    if in_f16 {
                                        interleave::<true>(both, PANEL, scale, at);
                                    } else {
                                        interleave::<false>(both, PANEL, scale, at);
                                    }
                                }
                            }
                            let panel = of_gradient.as_slice().as_ptr();
                            for tap in 0..WIDTH {
                                let begin = (2 * y + tap) * pairs * ROW * 2;
                                let row = &of_image.as_slice()[begin..][..pairs * ROW * 2];
                                for first in (0..ROW).step_by(ROWS) {
                                    let count = ROWS.min(ROW - first);
                                    let at = number * all + (tap * ROW + first) * PANEL;
                                    let target = shared.place(at, count * PANEL);
                                    // SAFETY: all pairs of these rows, a panel of as many pairs,
                                    // and sums of the rows, which no other job has.
                                    unsafe {
                                        let rows = Rows {
                                            taps: &[rows_of(&row[2 * first..], count)],
                                            count,
                                            pairs,
                                            step: 2 * ROW,
                                            turn: None,
                                        };
                                        arithmetic.add_product(rows, panel, scale, target, PANEL);
                                    }
                                }
                            }
                        }
                    });
                });
            }
        });
        for (index, value) in out.iter_mut().enumerate() {
            let (output, place) = (index / (WIDTH * ROW), index % (WIDTH * ROW));
            let of_part = |part: usize| sums[part * all + place * PANEL + output];
            *value = (0..parts).map(of_part).sum();
        }
    }
}

/// Arranges padded rows for sums over the pixels of a row: `[rows][pairs][21][2]`, with the input
/// of each pair of the convolution's pixels. Input after the row's end belongs to a missing pixel
/// and is zero.
fn pair_pixels(padded: &[u16], side: usize, out: &mut Aligned<u16>) {
    let (half, width) = (side.div_ceil(2), padded_width(side));
    let pairs = half.div_ceil(2);
    let of_row = pairs * ROW * 2;
    out.resize(padded.len() / width * of_row);
    let rows = out.as_mut_slice().chunks_exact_mut(of_row);
    for (row, out) in padded.chunks_exact(width).zip(rows) {
        for (pair, out) in out.chunks_exact_mut(ROW * 2).enumerate() {
            let first = &row[4 * pair * CHANNELS..][..ROW];
            let second = (2 * pair + 1 < half).then(|| &row[(4 * pair + 2) * CHANNELS..][..ROW]);
            for (column, both) in out.chunks_exact_mut(2).enumerate() {
                both[0] = first[column];
                both[1] = second.map_or(0, |second| second[column]);
            }
        }
    }
}

/// Scales, shifts and applies ReLU to 64 channels of the pixels that are not null, and stores the
/// maximum and its position.
///
/// # Safety
/// The CPU has the instructions, all pointers that are not null hold 64 values, and so do scale and
/// shift.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn pool(
    sources: &[*const u16; WINDOW],
    scale: &[f32],
    shift: &[f32],
    out: *mut u16,
    largest: *mut u8,
) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        for channel in (0..PANEL).step_by(CHUNK) {
            let load = |values: &[f32]| {
                let values = &values[channel..][..CHUNK];
                [
                    _mm512_loadu_ps(values.as_ptr()),
                    _mm512_loadu_ps(values[LANES..].as_ptr()),
                ]
            };
            let (scale, shift) = (load(scale), load(shift));
            let mut most = _mm512_setzero_si512();
            let mut place_of_most = _mm512_setzero_si512();
            let mut is_first = true;
            for (place, source) in sources.iter().enumerate() {
                if source.is_null() {
                    continue;
                }
                let mut values = vectors::load(source.add(channel));
                for half in 0..2 {
                    let value = _mm512_fmadd_ps(values[half], scale[half], shift[half]);
                    // In this operand order NaN persists, and adding zero removes a negative zero.
                    let value = _mm512_max_ps(_mm512_setzero_ps(), value);
                    values[half] = _mm512_add_ps(value, _mm512_setzero_ps());
                }
                let values = vectors::narrowed::<false>(values);
                let here = _mm512_set1_epi16(place as i16);
                if is_first {
                    (most, place_of_most, is_first) = (values, here, false);
                    continue;
                }
                // Without a sign the bits of bf16 have the order of the values.
                let is_larger = _mm512_cmpgt_epu16_mask(values, most);
                most = _mm512_mask_mov_epi16(most, is_larger, values);
                place_of_most = _mm512_mask_mov_epi16(place_of_most, is_larger, here);
            }
            _mm512_storeu_si512(out.add(channel).cast(), most);
            let places = _mm512_cvtepi16_epi8(place_of_most);
            _mm256_storeu_si256(largest.add(channel).cast(), places);
        }
    }
}

/// The sum of the gradients of the pooled pixels, at positions of `gradient`, whose maximum was the
/// pixel at the given window position.
///
/// # Safety
/// The CPU has the instructions, and `out` has room for 64 values.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn unpool(gradient: &[u16], largest: &[u8], sources: &[(usize, usize)], out: *mut u16) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        for channel in (0..PANEL).step_by(CHUNK) {
            let mut sums = [_mm512_setzero_ps(); 2];
            for (at, place) in sources {
                let gradient = &gradient[at + channel..][..CHUNK];
                let places: *const __m256i = largest[at + channel..][..CHUNK].as_ptr().cast();
                let places = _mm512_cvtepu8_epi16(_mm256_loadu_si256(places));
                let here = _mm512_set1_epi16(*place as i16);
                let is_largest = _mm512_cmpeq_epi16_mask(places, here);
                let values = _mm512_loadu_si512(gradient.as_ptr().cast());
                let values = vectors::widened(_mm512_maskz_mov_epi16(is_largest, values));
                for half in 0..2 {
                    sums[half] = _mm512_add_ps(sums[half], values[half]);
                }
            }
            vectors::store(sums, out.add(channel));
        }
    }
}
