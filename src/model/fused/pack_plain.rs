//! Panels in f16 and f32 from filters `[outputs, taps, inputs]`, once for each network.

use super::{
    format::Arithmetic,
    kernel::PANEL,
    memory::Shared,
    threads::Threads,
    winograd::{ELEMENTS, TAPS},
};

/// Values of a pair of rows of a panel.
const PAIR: usize = 2 * PANEL;

/// Transforms a filter of 3×3 for [`super::winograd`]: `[outputs / 64][16][inputs / 2]`, each a pair of rows of a panel.
///
/// # Panics
/// When a buffer does not have the size that the others ask for.
pub(super) fn winograd(
    arithmetic: Arithmetic,
    weight: &[f32],
    inputs: usize,
    threads: &Threads,
    panels: &mut [u16],
) {
    let sizes = [inputs, TAPS, ELEMENTS];
    pack(arithmetic, weight, sizes, threads, panels, transform);
}

/// Arranges a filter for [`super::direct`]: `[outputs / 64][taps][inputs / 2]`, each a pair of rows of a panel.
///
/// # Panics
/// As [`winograd`].
pub(super) fn direct(
    arithmetic: Arithmetic,
    weight: &[f32],
    inputs: usize,
    taps: usize,
    threads: &Threads,
    panels: &mut [u16],
) {
    pack(
        arithmetic,
        weight,
        [inputs, taps, taps],
        threads,
        panels,
        |taps, out| {
            out.copy_from_slice(taps);
        },
    );
}

/// Makes `elements` of the taps between each input and output, and puts them where a panel has them.
fn pack(
    arithmetic: Arithmetic,
    weight: &[f32],
    [inputs, taps, elements]: [usize; 3],
    threads: &Threads,
    panels: &mut [u16],
    transform: impl Fn(&[f32], &mut [f32]) + Sync + Send,
) {
    let outputs = weight.len() / (taps * inputs);
    assert!(inputs.is_multiple_of(2) && outputs.is_multiple_of(PANEL));
    let width = arithmetic.width();
    assert_eq!(panels.len(), elements * inputs * outputs * width);
    let panels = Shared::new(panels);
    let pairs = inputs / 2;
    threads.for_each(outputs / PANEL * pairs, |job| {
        let (panel, pair) = (job / pairs, job % pairs);
        let mut rows = vec![0.0; elements * PAIR];
        let (mut before, mut after) = ([0.0; TAPS], [0.0; ELEMENTS]);
        let (before, after) = (&mut before[..taps], &mut after[..elements]);
        for column in 0..PANEL {
            let output = panel * PANEL + column;
            for row in 0..2 {
                for (tap, value) in before.iter_mut().enumerate() {
                    *value = weight[(output * taps + tap) * inputs + 2 * pair + row];
                }
                transform(before, after);
                for (element, value) in after.iter().enumerate() {
                    rows[element * PAIR + arithmetic.place_of(row, column)] = *value;
                }
            }
        }
        for (element, values) in rows.chunks_exact(PAIR).enumerate() {
            let at = ((panel * elements + element) * pairs + pair) * PAIR * width;
            let mut rounded = [0; 2 * PAIR];
            let rounded = &mut rounded[..PAIR * width];
            arithmetic.round_all(values, rounded);
            panels.write(at, rounded);
        }
    });
}

/// G g Gᵀ (Lavin and Gray, 2015, arXiv:1509.09308, section 4.1).
fn transform(g: &[f32], out: &mut [f32]) {
    let combine = |a: f32, b: f32, c: f32| [a, 0.5 * (a + b + c), 0.5 * (a - b + c), c];
    let columns = [0, 1, 2].map(|x| combine(g[x], g[3 + x], g[6 + x]));
    for (y, row) in out.chunks_exact_mut(4).enumerate() {
        row.copy_from_slice(&combine(columns[0][y], columns[1][y], columns[2][y]));
    }
}
