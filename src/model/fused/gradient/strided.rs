//! Gradients of filters with stride 2: sums over pixels.

#![expect(
    unsafe_code,
    reason = "vector instructions work on pointers; a network exists only where the CPU has them"
)]

use std::cell::RefCell;

use super::{
    super::{
        direct::Filter,
        format::Arithmetic,
        kernel::PANEL,
        memory::{Aligned, BORDER, Shared},
        threads::Threads,
        winograd::Images,
    },
    GROUP, PRODUCTS, Workspace, in_parts, interleave,
};

/// Pairs of pixels that are arranged at once.
const PIECE: usize = 512;

thread_local! {
    static PANELS: RefCell<Aligned<u16>> = const { RefCell::new(Aligned::new()) };
}

/// The gradient of a filter with stride 2, `[outputs, taps, inputs]`, from the factors of its input
/// images, with their scale, and the gradient of its output.
///
/// # Panics
/// If the size of a buffer does not match the others.
pub(in super::super) fn gradient(
    arithmetic: Arithmetic,
    filter: &Filter,
    (images, scale): (Images<'_>, f32),
    gradient: &[u16],
    threads: &Threads,
    workspace: &mut Workspace,
    out: &mut [f32],
) {
    let own_scale = arithmetic.scale_of(gradient, threads);
    let side = images.side.div_ceil(2);
    let pixels = images.count * side * side;
    let inputs = images.pixels.len() / (images.count * images.side * images.side);
    let outputs = gradient.len() / pixels;
    let taps = out.len() / (inputs * outputs);
    let pairs = pixels.div_ceil(2);
    workspace.rows.resize(pairs * 2 * outputs);
    let rows = Shared::new(workspace.rows.as_mut_slice());
    threads.for_each(pairs, |pair| {
        let pixel = |pixel: usize| {
            if pixel < pixels {
                gradient[pixel * outputs..][..outputs].as_ptr()
            } else {
                BORDER.as_ptr()
            }
        };
        let both = [pixel(2 * pair), pixel(2 * pair + 1)];
        let at = |group: usize| rows.place((group * pairs + pair) * 2 * GROUP, 2 * GROUP);
        // SAFETY: both hold `outputs` values, and no other job has this pair.
        unsafe {
            if arithmetic.has_f16_factors() {
                interleave::<true>(both, outputs, own_scale, at);
            } else {
                interleave::<false>(both, outputs, own_scale, at);
            }
        };
    });
    let rows = workspace.rows.as_slice();
    let out = Shared::new(out);
    threads.for_each(taps * (inputs / PANEL), |job| {
        let (tap, panel) = (job / (inputs / PANEL), job % (inputs / PANEL));
        PRODUCTS.with_borrow_mut(|sums| {
            sums.resize(outputs * PANEL);
            let sums = sums.as_mut_slice();
            sums.fill(0.0);
            for begin in (0..pairs).step_by(PIECE) {
                let piece = begin..pairs.min(begin + PIECE);
                PANELS.with_borrow_mut(|factors| {
                    factors.resize(piece.len() * 2 * PANEL);
                    let arranged = Shared::new(factors.as_mut_slice());
                    for pair in piece.clone() {
                        let source = |pixel: usize| {
                            let there = pixel < pixels;
                            let found = there.then(|| filter.source(images, side, pixel, tap));
                            match found.flatten() {
                                Some(channels) => channels[panel * PANEL..][..PANEL].as_ptr(),
                                None => BORDER.as_ptr(),
                            }
                        };
                        let both = [source(2 * pair), source(2 * pair + 1)];
                        let start = (pair - begin) * 2 * PANEL;
                        let at =
                            |group: usize| arranged.place(start + group * 2 * GROUP, 2 * GROUP);
                        // SAFETY: both hold a panel's channels.
                        unsafe { interleave::<false>(both, PANEL, 1.0, at) };
                    }
                    let (panel, scale) = (factors.as_slice().as_ptr(), scale * own_scale);
                    for row in (0..outputs).step_by(GROUP) {
                        let start = (row / GROUP * pairs + begin) * 2 * GROUP;
                        let group = &rows[start..][..piece.len() * 2 * GROUP];
                        in_parts(group, |begin, rows| {
                            let sums = &mut sums[(row + begin) * PANEL..][..rows.count * PANEL];
                            let target = sums.as_mut_ptr();
                            // SAFETY: all pairs of these rows, a panel of as many pairs, and sums
                            // of the rows.
                            unsafe { arithmetic.add_product(rows, panel, scale, target, PANEL) };
                        });
                    }
                });
            }
            for (row, sums) in sums.chunks_exact(PANEL).enumerate() {
                out.write((row * taps + tap) * inputs + panel * PANEL, sums);
            }
        });
    });
}
