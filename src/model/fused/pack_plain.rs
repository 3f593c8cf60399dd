//! Panels in f16 and f32 from filters `[outputs, taps, inputs]`, once for each network.

use super::{
    format::Arithmetic,
    kernel::PANEL,
    memory::Shared,
    threads::Threads,
    tiles::{ELEMENTS, TAPS},
};

/// Values in a pair of rows of a panel.
const PAIR: usize = 2 * PANEL;

/// The value of a filter at each position of such a pair.
type Places = [f32; PAIR];

/// Transforms a 3×3 filter for [`super::winograd`]: `[outputs / 64][16][inputs / 2]`, each a pair
/// of rows of a panel.
///
/// # Panics
/// If the size of a buffer does not match the others.
pub(super) fn winograd(
    arithmetic: Arithmetic,
    weight: &[f32],
    inputs: usize,
    threads: &Threads,
    panels: &mut [u16],
) {
    pack(arithmetic, weight, inputs, threads, panels, transform);
}

/// Arranges a filter with `COUNT` taps for [`super::direct`]: `[outputs / 64][taps][inputs / 2]`,
/// each a pair of rows of a panel.
///
/// # Panics
/// As [`winograd`].
pub(super) fn direct<const COUNT: usize>(
    arithmetic: Arithmetic,
    weight: &[f32],
    inputs: usize,
    threads: &Threads,
    panels: &mut [u16],
) {
    pack(
        arithmetic,
        weight,
        inputs,
        threads,
        panels,
        <[Places; COUNT]>::clone,
    );
}

/// Computes `AFTER` elements from the `BEFORE` taps between each input and output, and stores them
/// in the layout of a panel.
fn pack<const BEFORE: usize, const AFTER: usize>(
    arithmetic: Arithmetic,
    weight: &[f32],
    inputs: usize,
    threads: &Threads,
    panels: &mut [u16],
    transform: impl Fn(&[Places; BEFORE]) -> [Places; AFTER] + Sync + Send,
) {
    let outputs = weight.len() / (BEFORE * inputs);
    assert!(inputs.is_multiple_of(2) && outputs.is_multiple_of(PANEL));
    let width = arithmetic.filter_width();
    assert_eq!(panels.len(), AFTER * inputs * outputs * width);
    let panels = Shared::new(panels);
    let pairs = inputs / 2;
    threads.for_each(outputs / PANEL * pairs, |job| {
        let (panel, pair) = (job / pairs, job % pairs);
        let mut before = [[0.0; PAIR]; BEFORE];
        for column in 0..PANEL {
            let places = [0, 1].map(|row| arithmetic.place_of(row, column));
            for (tap, values) in before.iter_mut().enumerate() {
                let at = ((panel * PANEL + column) * BEFORE + tap) * inputs + 2 * pair;
                for (place, value) in places.into_iter().zip(&weight[at..at + 2]) {
                    values[place] = *value;
                }
            }
        }
        for (element, values) in transform(&before).iter().enumerate() {
            let at = ((panel * AFTER + element) * pairs + pair) * PAIR * width;
            let mut rounded = [0; 2 * PAIR];
            let rounded = &mut rounded[..PAIR * width];
            arithmetic.round_filter(values, rounded);
            panels.write(at, rounded);
        }
    });
}

/// G g Gᵀ (Lavin and Gray, 2015, arXiv:1509.09308, section 4.1), for many filters at once.
fn transform(g: &[Places; TAPS]) -> [Places; ELEMENTS] {
    let mut made = [[0.0; PAIR]; ELEMENTS];
    for place in 0..PAIR {
        let combine = |a: f32, b: f32, c: f32| [a, 0.5 * (a + b + c), 0.5 * (a - b + c), c];
        let tap = |tap: usize| g[tap][place];
        let columns = [0, 1, 2].map(|x| combine(tap(x), tap(3 + x), tap(6 + x)));
        for y in 0..4 {
            let row = combine(columns[0][y], columns[1][y], columns[2][y]);
            for (x, value) in row.into_iter().enumerate() {
                made[4 * y + x][place] = value;
            }
        }
    }
    made
}
