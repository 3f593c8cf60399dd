//! Selection of the best epoch, and early stopping.

use crate::proto::worker_v1::PlateauState;

/// Follows the monitored metric; lower is better.
#[derive(Debug, Clone)]
pub(super) struct EarlyStopping {
    patience: u32,
    min_delta: f64,
    state: PlateauState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Verdict {
    /// The metric is the lowest so far; a tie keeps the earlier epoch, and NaN is never best.
    pub(super) is_best: bool,
    /// Validations since the last one that improved by more than `min_delta`.
    pub(super) waited: u32,
}

impl EarlyStopping {
    /// Stops after `patience` validations (0: never) that do not improve by more than `min_delta`.
    pub(super) fn new(patience: u32, min_delta: f64) -> Self {
        EarlyStopping {
            patience,
            min_delta,
            state: PlateauState::default(),
        }
    }

    pub(super) fn set_patience(&mut self, patience: u32) {
        self.patience = patience;
    }

    /// Returns whether the training should stop.
    pub(super) fn is_exhausted(&self) -> bool {
        self.patience > 0 && self.state.waited >= self.patience
    }

    pub(super) fn state(&self) -> PlateauState {
        self.state
    }

    /// Restores the state of an earlier process.
    pub(super) fn restore(&mut self, state: PlateauState) {
        self.state = state;
    }

    /// Observes the metric of the next epoch.
    pub(super) fn observe(&mut self, metric: f64) -> Verdict {
        let state = &mut self.state;
        let is_best = metric.is_finite() && state.best.is_none_or(|best| metric < best);
        if is_best {
            state.best = Some(metric);
        }
        let is_below = |reference: f64| metric < reference - self.min_delta;
        if metric.is_finite() && state.reference.is_none_or(is_below) {
            state.reference = Some(metric);
            state.waited = 0;
        } else {
            state.waited += 1;
        }
        Verdict {
            is_best,
            waited: state.waited,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdicts(patience: u32, min_delta: f64, losses: &[f64]) -> Vec<(bool, u32, bool)> {
        let mut stopping = EarlyStopping::new(patience, min_delta);
        let verdict = |loss: &f64| {
            let verdict = stopping.observe(*loss);
            (verdict.is_best, verdict.waited, stopping.is_exhausted())
        };
        losses.iter().map(verdict).collect()
    }

    #[test]
    fn stops_after_patience_validations_without_improvement() {
        assert_eq!(
            verdicts(2, 0.0, &[9.0, 8.0, 8.5, 8.0]),
            [
                (true, 0, false),
                (true, 0, false),
                (false, 1, false),
                (false, 2, true)
            ]
        );
    }

    #[test]
    fn small_improvements_are_best_but_do_not_reset_patience() {
        assert_eq!(
            verdicts(2, 1.0, &[9.0, 8.5, 8.2, 7.9]),
            [
                (true, 0, false),
                (true, 1, false),
                (true, 2, true),
                (true, 0, false)
            ]
        );
    }

    #[test]
    fn nan_is_never_best() {
        assert_eq!(
            verdicts(0, 0.0, &[f64::NAN, 5.0, f64::NAN]),
            [(false, 1, false), (true, 0, false), (false, 1, false)]
        );
    }
}
