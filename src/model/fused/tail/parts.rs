//! Positions of the parameters, and BatchNorms of the trainable layers.

use std::{collections::BTreeMap, ops::Range};

use tch::Tensor;

use super::super::{
    super::{Error, forward::Mode, slices::values_mut},
    norm::{Affine, MOMENTUM, Statistics},
    threads::Threads,
};

/// Ranges of the parameters in the flat buffer.
#[derive(Debug)]
pub(super) struct ParameterRanges(BTreeMap<String, Range<usize>>);

impl ParameterRanges {
    pub(super) fn new<'a>(parameters: impl Iterator<Item = (&'a str, usize)>) -> Self {
        let mut at = 0;
        let place = |(name, length): (&str, usize)| {
            at += length;
            (name.to_owned(), at - length..at)
        };
        ParameterRanges(parameters.map(place).collect())
    }

    /// # Panics
    /// If the parameter is missing; callers pass names of trainable parameters only.
    pub(super) fn of(&self, name: &str) -> Range<usize> {
        self.0[name].clone()
    }
}

/// Common inputs of a step.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step<'a> {
    /// All parameters, `[P]`.
    pub(super) parameters: &'a [f32],
    pub(super) mode: Mode,
    pub(super) threads: &'a Threads,
}

/// A trainable BatchNorm.
#[derive(Debug)]
pub(super) struct Norm {
    scale: Range<usize>,
    shift: Range<usize>,
    running: Running,
    /// Statistics of the latest batch.
    statistics: Statistics,
}

impl Norm {
    pub(super) fn new(
        places: &ParameterRanges,
        state: &BTreeMap<String, Tensor>,
        name: &str,
    ) -> Self {
        Norm {
            scale: places.of(&format!("{name}.weight")),
            shift: places.of(&format!("{name}.bias")),
            running: Running::of(state, name),
            statistics: Statistics::default(),
        }
    }

    /// Computes the statistics of a batch `[pixels, channels]`; in training mode the running
    /// statistics are updated.
    ///
    /// # Errors
    /// A failure of libtorch.
    pub(super) fn observe(&mut self, values: &[u16], step: Step<'_>) -> Result<(), Error> {
        self.statistics = self.running.statistics(values, step.mode, step.threads);
        if step.mode.is_counted() {
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

    /// Propagates the gradient to the observed batch, in place, and stores those of scale and
    /// shift.
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

    /// Counts a batch that updated the statistics.
    fn count_batch(&mut self) -> Result<(), Error> {
        Ok(self.batches.f_add_scalar_(1).map(drop)?)
    }

    /// Statistics for normalising a batch `[pixels, channels]`; in training mode its own, which
    /// update or replace the running ones.
    #[expect(unsafe_code, reason = "the statistics are updated in place")]
    fn statistics(&mut self, values: &[u16], mode: Mode, threads: &Threads) -> Statistics {
        // SAFETY: two tensors of the state, which the thread of the training uses through their
        // names only between steps.
        let running = unsafe { (values_mut(&mut self.mean), values_mut(&mut self.variance)) };
        match mode {
            Mode::Eval => Statistics::running(running.0, running.1),
            Mode::Train => Statistics::of_batch(values, running, MOMENTUM, threads),
            Mode::TrainShard => Statistics::of_batch(values, running, 1.0, threads),
        }
    }
}
