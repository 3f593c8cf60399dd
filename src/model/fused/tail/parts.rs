//! The parts of layer4 and the head: where their parameters lie, and what their BatchNorms remember.

use std::{collections::BTreeMap, ops::Range};

use tch::Tensor;

use super::super::{
    super::{Error, resnet18::Mode, slices::values_mut},
    norm::Statistics,
    threads::Threads,
};

/// Convolutions with the BatchNorms behind them, in the order of the forward pass.
pub(super) const UNITS: usize = 5;
pub(super) const NAMES: [(&str, &str); UNITS] = [
    ("layer4.0.conv1", "layer4.0.bn1"),
    ("layer4.0.conv2", "layer4.0.bn2"),
    ("layer4.0.downsample.0", "layer4.0.downsample.1"),
    ("layer4.1.conv1", "layer4.1.bn1"),
    ("layer4.1.conv2", "layer4.1.bn2"),
];
pub(super) const FIRST: usize = 0;
pub(super) const SECOND: usize = 1;
pub(super) const DOWNSAMPLE: usize = 2;
pub(super) const THIRD: usize = 3;
pub(super) const FOURTH: usize = 4;
/// The units that are convolutions of 3×3 with stride 1.
pub(super) const SAME: [usize; 3] = [SECOND, THIRD, FOURTH];

/// Where the parameters lie in the buffer of all.
#[derive(Debug)]
pub(super) struct Places {
    pub(super) weights: [Range<usize>; UNITS],
    pub(super) scales: [Range<usize>; UNITS],
    pub(super) shifts: [Range<usize>; UNITS],
    pub(super) head: Range<usize>,
    pub(super) head_bias: usize,
}

/// The running statistics, shared with the network's state.
#[derive(Debug)]
pub(super) struct Running {
    mean: Tensor,
    variance: Tensor,
    batches: Tensor,
}

impl Places {
    /// `None` where other parts than layer4 and the head are among them, or not all of those.
    pub(super) fn find<'a>(parameters: impl Iterator<Item = (&'a str, usize)>) -> Option<Self> {
        let mut found = BTreeMap::new();
        let mut at = 0;
        for (name, length) in parameters {
            found.insert(name, at..at + length);
            at += length;
        }
        let of = |name: String| found.get(name.as_str()).cloned().unwrap_or_default();
        let made = Places {
            weights: NAMES.map(|(conv, _)| of(format!("{conv}.weight"))),
            scales: NAMES.map(|(_, norm)| of(format!("{norm}.weight"))),
            shifts: NAMES.map(|(_, norm)| of(format!("{norm}.bias"))),
            head: of("fc.weight".to_owned()),
            head_bias: of("fc.bias".to_owned()).start,
        };
        // Fifteen of the five units and two of the head: other parts than these are trained, or not all of them.
        let is_whole = found.len() == 3 * UNITS + 2 && !made.weights.iter().any(Range::is_empty);
        is_whole.then_some(made)
    }
}

impl Running {
    pub(super) fn of(state: &BTreeMap<String, Tensor>, norm: &str) -> Self {
        let of = |field: &str| state[&format!("{norm}.{field}")].shallow_clone();
        Running {
            mean: of("running_mean"),
            variance: of("running_var"),
            batches: of("num_batches_tracked"),
        }
    }

    /// One more batch moved the statistics.
    ///
    /// # Errors
    /// Whatever libtorch refuses.
    pub(super) fn count_batch(&mut self) -> Result<(), Error> {
        Ok(self.batches.f_add_scalar_(1).map(drop)?)
    }

    /// What a batch `[pixels, channels]` is normalised with; in training mode its own, which move the running ones.
    pub(super) fn statistics(
        &mut self,
        values: &[u16],
        mode: Mode,
        threads: &Threads,
    ) -> Statistics {
        match mode {
            Mode::Eval => {
                Statistics::running(values_mut(&mut self.mean), values_mut(&mut self.variance))
            }
            Mode::Train => {
                let running = (values_mut(&mut self.mean), values_mut(&mut self.variance));
                Statistics::of_batch(values, running, threads)
            }
        }
    }
}
