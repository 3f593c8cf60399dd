//! Where the parameters of the trained layers lie, and what their BatchNorms remember.

use std::{collections::BTreeMap, ops::Range};

use tch::Tensor;

use super::super::{
    super::{Error, forward::Mode, slices::values_mut},
    norm::{Affine, Statistics},
    threads::Threads,
};

/// Where the parameters lie in the buffer of all.
#[derive(Debug)]
pub(super) struct Places(BTreeMap<String, Range<usize>>);

impl Places {
    pub(super) fn new<'a>(parameters: impl Iterator<Item = (&'a str, usize)>) -> Self {
        let mut at = 0;
        let place = |(name, length): (&str, usize)| {
            at += length;
            (name.to_owned(), at - length..at)
        };
        Places(parameters.map(place).collect())
    }

    /// # Panics
    /// When there is no such parameter: whoever asks knows what is trained.
    pub(super) fn of(&self, name: &str) -> Range<usize> {
        self.0[name].clone()
    }
}

/// What all parts of a step have in common.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step<'a> {
    /// All, `[P]`.
    pub(super) parameters: &'a [f32],
    pub(super) mode: Mode,
    pub(super) threads: &'a Threads,
}

/// A BatchNorm as it is trained.
#[derive(Debug)]
pub(super) struct Norm {
    scale: Range<usize>,
    shift: Range<usize>,
    running: Running,
    /// Of the latest batch.
    statistics: Statistics,
}

impl Norm {
    pub(super) fn new(places: &Places, state: &BTreeMap<String, Tensor>, name: &str) -> Self {
        Norm {
            scale: places.of(&format!("{name}.weight")),
            shift: places.of(&format!("{name}.bias")),
            running: Running::of(state, name),
            statistics: Statistics::default(),
        }
    }

    /// Looks at a batch `[pixels, channels]`; in training mode the running statistics move.
    ///
    /// # Errors
    /// Whatever libtorch refuses.
    pub(super) fn observe(&mut self, values: &[u16], step: Step<'_>) -> Result<(), Error> {
        self.statistics = self.running.statistics(values, step.mode, step.threads);
        if step.mode == Mode::Train {
            self.running.count_batch()?;
        }
        Ok(())
    }

    pub(super) fn statistics(&self) -> &Statistics {
        &self.statistics
    }

    pub(super) fn affine<'a>(&self, parameters: &'a [f32]) -> Affine<'a> {
        Affine {
            weight: &parameters[self.scale.clone()],
            bias: &parameters[self.shift.clone()],
        }
    }

    /// Takes the gradient back to the batch that was observed, in place, and puts those of scale and shift into that of all parameters.
    pub(super) fn backward(
        &self,
        values: &[u16],
        step: Step<'_>,
        gradient: &mut [u16],
        out: &mut [f32],
    ) {
        let (mut of_scale, mut of_shift) =
            (vec![0.0; self.scale.len()], vec![0.0; self.shift.len()]);
        self.statistics.backward(
            values,
            &step.parameters[self.scale.clone()],
            step.threads,
            gradient,
            (&mut of_scale, &mut of_shift),
        );
        out[self.scale.clone()].copy_from_slice(&of_scale);
        out[self.shift.clone()].copy_from_slice(&of_shift);
    }
}

/// The running statistics, shared with the network's state.
#[derive(Debug)]
struct Running {
    mean: Tensor,
    variance: Tensor,
    batches: Tensor,
}

impl Running {
    fn of(state: &BTreeMap<String, Tensor>, norm: &str) -> Self {
        let of = |field: &str| state[&format!("{norm}.{field}")].shallow_clone();
        Running {
            mean: of("running_mean"),
            variance: of("running_var"),
            batches: of("num_batches_tracked"),
        }
    }

    /// One more batch moved the statistics.
    fn count_batch(&mut self) -> Result<(), Error> {
        Ok(self.batches.f_add_scalar_(1).map(drop)?)
    }

    /// What a batch `[pixels, channels]` is normalised with; in training mode its own, which move the running ones.
    fn statistics(&mut self, values: &[u16], mode: Mode, threads: &Threads) -> Statistics {
        let running = (values_mut(&mut self.mean), values_mut(&mut self.variance));
        match mode {
            Mode::Eval => Statistics::running(running.0, running.1),
            Mode::Train => Statistics::of_batch(values, running, threads),
        }
    }
}
