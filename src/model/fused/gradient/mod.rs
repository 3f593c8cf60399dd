//! Gradients of filters: sums over pixels, or over Winograd's tiles, of products of an output's
//! gradient and an input.
//!
//! The sum runs over distant memory, so both factors are first arranged in pairs of pixels (or
//! tiles): the gradient in groups of rows `[pairs][16][2]`, a cache line for each pair, which are
//! multiplied pair by pair with panels `[pairs][64][2]` of the input.

#![expect(
    unsafe_code,
    reason = "vector instructions work on pointers; a network exists only where the CPU has them"
)]

use std::{
    arch::x86_64::{
        __m512, _mm512_add_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_mul_ps, _mm512_set1_ps,
        _mm512_setzero_ps, _mm512_storeu_ps, _mm512_storeu_si512, _mm512_sub_ps,
    },
    cell::RefCell,
};

use super::{
    format::Arithmetic,
    kernel::{self, CHUNK, PANEL, ROWS, Rows},
    memory::{Aligned, BORDER, Shared},
    threads::Threads,
    tiles::{ELEMENTS, TAPS},
    vectors,
    winograd::{Grid, Images},
};

mod strided;

pub(super) use strided::gradient as direct;

/// Rows of the gradient that a job computes at once for all elements of a tile.
const BLOCK: usize = 4 * GROUP;
/// Channels of the gradient in a group.
const GROUP: usize = 16;
/// Start and number of the rows in a group that are multiplied at once.
const PARTS_OF_GROUP: [(usize, usize); 3] = [(0, 6), (6, 5), (11, 5)];
/// Maximum of inputs times outputs at which the sums of all elements, 1 MB of f32, fit into a
/// core's cache.
const FEW: usize = 128 * 128;
/// Pairs of tiles that are arranged at once with few channels.
const PAIRS: usize = 64;

/// Buffers that are reused from step to step.
#[derive(Debug)]
pub(super) struct Workspace {
    rows: Aligned<u16>,
    panels: Aligned<u16>,
    sums: Aligned<f32>,
}

thread_local! {
    static PRODUCTS: RefCell<Aligned<f32>> = const { RefCell::new(Aligned::new()) };
    /// Panels and rows.
    static FEW_TILES: RefCell<(Aligned<u16>, Aligned<u16>)> =
        const { RefCell::new((Aligned::new(), Aligned::new())) };
}

impl Workspace {
    pub(super) const fn new() -> Self {
        Workspace {
            rows: Aligned::new(),
            panels: Aligned::new(),
            sums: Aligned::new(),
        }
    }
}

/// The gradient of a 3×3 filter with stride 1, `[outputs, 9, inputs]`, from its input images and
/// the gradient of its output.
///
/// dg = Gᵀ (Σ B ᵀd B ⊙ A dy Aᵀ) G: the adjoint of [`super::winograd`]'s three transforms.
///
/// # Panics
/// If the size of a buffer does not match the others.
pub(super) fn winograd(
    arithmetic: Arithmetic,
    images: Images<'_>,
    gradient: &[u16],
    threads: &Threads,
    workspace: &mut Workspace,
    out: &mut [f32],
) {
    let grid = Grid::new(images.count, images.side);
    let pixels = images.count * images.side * images.side;
    let (inputs, outputs) = (images.pixels.len() / pixels, gradient.len() / pixels);
    assert_eq!(out.len(), TAPS * inputs * outputs);
    let arranger = Arranger {
        arithmetic,
        grid: &grid,
        pixels: images.pixels,
        gradient,
        inputs,
        outputs,
        scales: [images.pixels, gradient].map(|values| arithmetic.scale_of(values, threads)),
    };
    if inputs * outputs <= FEW {
        arranger.of_few_channels(threads, workspace, out);
    } else {
        arranger.of_many_channels(threads, workspace, out);
    }
}

/// The sources of pairs of tiles.
#[derive(Debug)]
struct Arranger<'a> {
    arithmetic: Arithmetic,
    grid: &'a Grid,
    pixels: &'a [u16],
    gradient: &'a [u16],
    inputs: usize,
    outputs: usize,
    /// Scales of the factors.
    scales: [f32; 2],
}

impl Arranger<'_> {
    fn pairs(&self) -> usize {
        self.grid.all().div_ceil(2)
    }

    /// Stores a pair of tiles in its slot of panels `[element][inputs / 64][slots][64][2]` and
    /// groups `[element][outputs / 16][slots][16][2]`.
    fn arrange(
        &self,
        pair: usize,
        (slot, slots): (usize, usize),
        panels: Shared<'_, u16>,
        rows: Shared<'_, u16>,
    ) {
        let (inputs, outputs) = (self.inputs, self.outputs);
        let tiles = [2 * pair, 2 * pair + 1];
        let there = |tile: &usize| *tile < self.grid.all();
        let sources = tiles.map(|tile| {
            if there(&tile) {
                self.grid.sources(tile, self.pixels, inputs)
            } else {
                [BORDER.as_ptr(); ELEMENTS]
            }
        });
        let targets = tiles.map(|tile| {
            let mut targets = [BORDER.as_ptr(); 4];
            if there(&tile) {
                for (target, pixel) in targets.iter_mut().zip(self.grid.targets(tile)) {
                    if let Some(pixel) = pixel {
                        *target = self.gradient[pixel * outputs..][..outputs].as_ptr();
                    }
                }
            }
            targets
        });
        let in_f16 = self.arithmetic.has_f16_factors();
        for chunk in (0..inputs).step_by(CHUNK) {
            let at = |element: usize, half: usize| {
                let panel = element * (inputs / PANEL) + chunk / PANEL;
                let channel = chunk % PANEL + half * GROUP;
                panels.place(((panel * slots + slot) * PANEL + channel) * 2, 2 * GROUP)
            };
            // SAFETY: the pixels have these channels, and no other job has this slot.
            unsafe {
                if in_f16 {
                    input_pair::<true>(&sources, chunk, self.scales[0], at);
                } else {
                    input_pair::<false>(&sources, chunk, self.scales[0], at);
                }
            };
        }
        for chunk in (0..outputs).step_by(CHUNK) {
            let at = |element: usize, half: usize| {
                let group = element * (outputs / GROUP) + chunk / GROUP + half;
                rows.place((group * slots + slot) * 2 * GROUP, 2 * GROUP)
            };
            // SAFETY: likewise.
            unsafe {
                if in_f16 {
                    output_pair::<true>(&targets, chunk, self.scales[1], at);
                } else {
                    output_pair::<false>(&targets, chunk, self.scales[1], at);
                }
            };
        }
    }

    /// The scale of products.
    fn scale(&self) -> f32 {
        self.scales[0] * self.scales[1]
    }

    /// For many channels, where sums are large and tiles few: all tiles are arranged at once, and
    /// each job computes some of the sums.
    fn of_many_channels(&self, threads: &Threads, workspace: &mut Workspace, out: &mut [f32]) {
        let (arithmetic, inputs, outputs, pairs) =
            (self.arithmetic, self.inputs, self.outputs, self.pairs());
        workspace.panels.resize(ELEMENTS * pairs * 2 * inputs);
        workspace.rows.resize(ELEMENTS * pairs * 2 * outputs);
        let (panels, rows) = (
            Shared::new(workspace.panels.as_mut_slice()),
            Shared::new(workspace.rows.as_mut_slice()),
        );
        threads.for_each(pairs, |pair| {
            self.arrange(pair, (pair, pairs), panels, rows);
        });
        let (panels, rows) = (workspace.panels.as_slice(), workspace.rows.as_slice());
        let out = Shared::new(out);
        let blocks = outputs.div_ceil(BLOCK);
        threads.for_each(inputs / PANEL * blocks, |job| {
            let (panel, first) = (job / blocks, job % blocks * BLOCK);
            let count = BLOCK.min(outputs - first);
            PRODUCTS.with_borrow_mut(|products| {
                products.resize(ELEMENTS * count * PANEL);
                let products = Shared::new(products.as_mut_slice());
                for element in 0..ELEMENTS {
                    let length = pairs * 2 * PANEL;
                    let start = (element * (inputs / PANEL) + panel) * length;
                    let factors = &panels[start..start + length];
                    for row in (0..count).step_by(GROUP) {
                        let group = element * (outputs / GROUP) + (first + row) / GROUP;
                        let group = &rows[group * pairs * 2 * GROUP..][..pairs * 2 * GROUP];
                        in_parts(group, |begin, rows| {
                            let place = (element * count + row + begin) * PANEL;
                            let target = products.place(place, rows.count * PANEL).cast();
                            let (panel, scale) = (factors.as_ptr(), self.scale());
                            // SAFETY: all pairs of these rows, a panel of as many pairs, and room
                            // for the rows.
                            unsafe { arithmetic.product(rows, panel, scale, target, PANEL) };
                        });
                    }
                }
                for row in 0..count {
                    let from = products.place(row * PANEL, ((ELEMENTS - 1) * count + 1) * PANEL);
                    // SAFETY: 16 elements of this row, and no other job has this output and panel.
                    unsafe { row_gradient(from, count * PANEL, (first + row, panel), inputs, out) };
                }
            });
        });
    }

    /// For few channels, where tiles are many and all sums fit into a core's cache: each job
    /// processes a part of the tiles, a few at a time. There are as many parts as threads, so sums
    /// are reproducible on a machine and may differ in their last digits on another one.
    fn of_few_channels(&self, threads: &Threads, workspace: &mut Workspace, out: &mut [f32]) {
        let (arithmetic, inputs, outputs, pairs) =
            (self.arithmetic, self.inputs, self.outputs, self.pairs());
        let parts = threads.count().min(pairs);
        let part = pairs.div_ceil(parts);
        let all = ELEMENTS * inputs * outputs;
        // `[part][inputs / 64][element][outputs][64]`.
        workspace.sums.resize(parts * all);
        let sums = Shared::new(workspace.sums.as_mut_slice());
        let of_panel = ELEMENTS * outputs * PANEL;
        threads.for_each(parts, |number| {
            let start = sums.place(number * all, all);
            // SAFETY: the run is within the buffer, and no other job has this part.
            unsafe { start.write_bytes(0, all) };
            FEW_TILES.with_borrow_mut(|(panels, rows)| {
                let end = pairs.min((number + 1) * part);
                for begin in (number * part..end).step_by(PAIRS) {
                    let slots = PAIRS.min(end - begin);
                    panels.resize(ELEMENTS * slots * 2 * inputs);
                    rows.resize(ELEMENTS * slots * 2 * outputs);
                    let shared = (
                        Shared::new(panels.as_mut_slice()),
                        Shared::new(rows.as_mut_slice()),
                    );
                    for slot in 0..slots {
                        self.arrange(begin + slot, (slot, slots), shared.0, shared.1);
                    }
                    let (panels, rows) = (panels.as_slice(), rows.as_slice());
                    for (job, panel) in panels.chunks_exact(slots * 2 * PANEL).enumerate() {
                        let (element, of_inputs) = (job / (inputs / PANEL), job % (inputs / PANEL));
                        let place = number * all + of_inputs * of_panel + element * outputs * PANEL;
                        for row in (0..outputs).step_by(GROUP) {
                            let group = (element * outputs + row) / GROUP;
                            let group = &rows[group * slots * 2 * GROUP..][..slots * 2 * GROUP];
                            in_parts(group, |begin, rows| {
                                let place = place + (row + begin) * PANEL;
                                let target = sums.place(place, rows.count * PANEL);
                                let (panel, scale) = (panel.as_ptr(), self.scale());
                                // SAFETY: all pairs of these rows, a panel of as many pairs, and
                                // sums of the rows.
                                unsafe {
                                    arithmetic.add_product(rows, panel, scale, target, PANEL)
                                };
                            });
                        }
                    }
                }
            });
        });
        let (total, others) = workspace.sums.as_mut_slice().split_at_mut(all);
        let total = Shared::new(total);
        let out = Shared::new(out);
        threads.for_each(inputs / PANEL * outputs, |job| {
            let (panel, row) = (job / outputs, job % outputs);
            for element in 0..ELEMENTS {
                let place = panel * of_panel + (element * outputs + row) * PANEL;
                let target = total.place(place, PANEL);
                for other in others.chunks_exact(all) {
                    for (column, value) in other[place..][..PANEL].iter().enumerate() {
                        // SAFETY: within the run, which no other job has.
                        unsafe { *target.add(column) += value };
                    }
                }
            }
            let length = ((ELEMENTS - 1) * outputs + 1) * PANEL;
            let from = total.place(panel * of_panel + row * PANEL, length);
            // SAFETY: 16 elements of this row, and no other job has this output and panel.
            unsafe { row_gradient(from, outputs * PANEL, (row, panel), inputs, out) };
        });
    }
}

/// The gradient of one output's filter for the inputs of a panel, from sums with element i at `from
/// + i * stride`.
///
/// # Safety
/// The CPU has the instructions, all elements are present, and nothing else writes to this output's
/// filter in this panel.
unsafe fn row_gradient(
    from: *const f32,
    stride: usize,
    (row, panel): (usize, usize),
    inputs: usize,
    out: Shared<'_, f32>,
) {
    // The even channels precede the odd ones in both the rows and the panel's columns.
    let output = channel_at(row);
    for chunk in (0..PANEL).step_by(CHUNK) {
        let at = |tap: usize| {
            let place = (output * TAPS + tap) * inputs + panel * PANEL + chunk;
            out.place(place, CHUNK)
        };
        // SAFETY: guaranteed by the caller.
        unsafe { filter_gradient(from.add(chunk), stride, at) };
    }
}

/// The channel at a position of a chunk with its even channels before the odd ones.
fn channel_at(place: usize) -> usize {
    place - place % CHUNK + usize::from(vectors::EVEN_ODD[place % CHUNK])
}

/// Calls the function with the rows of a group `[pairs][16][2]` that are multiplied at once, and
/// the index of the first of them.
fn in_parts(group: &[u16], mut work: impl FnMut(usize, Rows<'_>)) {
    for (first, count) in PARTS_OF_GROUP {
        let rows = Rows {
            taps: &[rows_of(&group[2 * first..], count)],
            count,
            pairs: group.len() / (2 * GROUP),
            step: 2 * GROUP,
            turn: None,
        };
        work(first, rows);
    }
}

/// Starts of rows with consecutive pairs.
pub(super) fn rows_of(values: &[u16], count: usize) -> [*const u16; ROWS] {
    let mut rows = [values.as_ptr(); ROWS];
    for (row, place) in rows.iter_mut().enumerate().take(count) {
        *place = values[2 * row..].as_ptr();
    }
    rows
}

/// Pairs of two vectors of channels, in order; as f16 factors of this scale if requested, otherwise
/// unchanged. Each [`GROUP`] goes to the address that `at` returns.
///
/// # Safety
/// The CPU has the instructions; both hold `channels` values, a multiple of [`CHUNK`], and `at`
/// returns room for a group of pairs.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) unsafe fn interleave<const IN_F16: bool>(
    both: [*const u16; 2],
    channels: usize,
    scale: f32,
    at: impl Fn(usize) -> *mut u16,
) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        for channel in (0..channels).step_by(CHUNK) {
            let [first, second] = both.map(|values| {
                let values = values.add(channel);
                if IN_F16 {
                    let scaled = kernel::scaled::<true>(vectors::load(values), scale);
                    return vectors::narrowed::<true>(scaled);
                }
                _mm512_loadu_si512(values.cast())
            });
            let [lower, upper] = vectors::between(first, second);
            _mm512_storeu_si512(at(channel / GROUP).cast(), lower);
            _mm512_storeu_si512(at(channel / GROUP + 1).cast(), upper);
        }
    }
}

/// Bᵀ d B of two tiles for 32 channels from `chunk` on, in pairs.
///
/// # Safety
/// The CPU has the instructions, the pixels have these channels, and `at` returns room for 16 pairs
/// of the even and of the odd channels.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn input_pair<const IN_F16: bool>(
    tiles: &[[*const u16; ELEMENTS]; 2],
    chunk: usize,
    scale: f32,
    at: impl Fn(usize, usize) -> *mut u16,
) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        let mut done = [[[_mm512_setzero_ps(); ELEMENTS]; 2]; 2];
        for (tile, done) in tiles.iter().zip(&mut done) {
            let mut halves = [[_mm512_setzero_ps(); ELEMENTS]; 2];
            for (place, pixel) in tile.iter().enumerate() {
                let packed = _mm512_loadu_si512(pixel.add(chunk).cast());
                let [even, odd] = vectors::even_and_odd(packed);
                halves[0][place] = even;
                halves[1][place] = odd;
            }
            *done = [
                kernel::transformed(&halves[0]),
                kernel::transformed(&halves[1]),
            ];
        }
        store_pairs::<IN_F16>(&done, scale, at);
    }
}

/// A dy Aᵀ of two tiles for 32 channels from `chunk` on, in pairs.
///
/// # Safety
/// As for [`input_pair`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn output_pair<const IN_F16: bool>(
    tiles: &[[*const u16; 4]; 2],
    chunk: usize,
    scale: f32,
    at: impl Fn(usize, usize) -> *mut u16,
) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        let mut done = [[[_mm512_setzero_ps(); ELEMENTS]; 2]; 2];
        for (tile, done) in tiles.iter().zip(&mut done) {
            let mut halves = [[_mm512_setzero_ps(); 4]; 2];
            for (place, pixel) in tile.iter().enumerate() {
                let packed = _mm512_loadu_si512(pixel.add(chunk).cast());
                let [even, odd] = vectors::even_and_odd(packed);
                halves[0][place] = even;
                halves[1][place] = odd;
            }
            *done = [spread(&halves[0]), spread(&halves[1])];
        }
        store_pairs::<IN_F16>(&done, scale, at);
    }
}

/// Stores the elements of two tiles in pairs, even channels before odd ones.
///
/// # Safety
/// The CPU has the instructions, and `at` returns room for 16 pairs of the even and of the odd
/// channels.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn store_pairs<const IN_F16: bool>(
    tiles: &[[[__m512; ELEMENTS]; 2]; 2],
    scale: f32,
    at: impl Fn(usize, usize) -> *mut u16,
) {
    for (half, (first, second)) in tiles[0].iter().zip(&tiles[1]).enumerate() {
        for (element, (first, second)) in first.iter().zip(second).enumerate() {
            let [first, second] = kernel::scaled::<IN_F16>([*first, *second], scale);
            let pairs = vectors::pairs::<IN_F16>(first, second);
            // SAFETY: guaranteed by the caller.
            unsafe { _mm512_storeu_si512(at(element, half).cast(), pairs) };
        }
    }
}

/// A y Aᵀ for 2×2 pixels.
#[inline]
#[target_feature(enable = "avx512f")]
fn spread(y: &[__m512; 4]) -> [__m512; ELEMENTS] {
    let zero = _mm512_setzero_ps();
    let widen = |a: __m512, b: __m512| {
        [
            a,
            _mm512_add_ps(a, b),
            _mm512_sub_ps(a, b),
            _mm512_sub_ps(zero, b),
        ]
    };
    let (left, right) = (widen(y[0], y[2]), widen(y[1], y[3]));
    let mut both = [zero; ELEMENTS];
    for row in 0..4 {
        both[4 * row..4 * row + 4].copy_from_slice(&widen(left[row], right[row]));
    }
    both
}

/// Gᵀ u G for 32 columns, even channels before odd ones; element i is at `products + i * stride`.
///
/// # Safety
/// The CPU has the instructions, all elements are present, and `at` returns room for 32 values.
#[target_feature(enable = "avx512f")]
unsafe fn filter_gradient(products: *const f32, stride: usize, at: impl Fn(usize) -> *mut f32) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        let half = |offset: usize| {
            let mut u = [_mm512_setzero_ps(); ELEMENTS];
            for (element, u) in u.iter_mut().enumerate() {
                *u = _mm512_loadu_ps(products.add(element * stride + offset));
            }
            gathered(&u)
        };
        let (even, odd) = (half(0), half(16));
        for tap in 0..TAPS {
            let [lower, upper] = vectors::in_order(even[tap], odd[tap]);
            _mm512_storeu_ps(at(tap), lower);
            _mm512_storeu_ps(at(tap).add(16), upper);
        }
    }
}

/// Gᵀ u G.
#[inline]
#[target_feature(enable = "avx512f")]
fn gathered(u: &[__m512; ELEMENTS]) -> [__m512; TAPS] {
    let half = _mm512_set1_ps(0.5);
    let combine = |a: __m512, b: __m512, c: __m512, d: __m512| {
        let sum = _mm512_mul_ps(half, _mm512_add_ps(b, c));
        let difference = _mm512_mul_ps(half, _mm512_sub_ps(b, c));
        [_mm512_add_ps(a, sum), difference, _mm512_add_ps(sum, d)]
    };
    let mut columns = [[_mm512_setzero_ps(); 3]; 4];
    for (x, column) in columns.iter_mut().enumerate() {
        *column = combine(u[x], u[4 + x], u[8 + x], u[12 + x]);
    }
    let mut taps = [_mm512_setzero_ps(); TAPS];
    for y in 0..3 {
        let row = combine(columns[0][y], columns[1][y], columns[2][y], columns[3][y]);
        taps[3 * y..3 * y + 3].copy_from_slice(&row);
    }
    taps
}
