//! Which epoch is the best, and when to give up waiting for a better one.

use crate::proto::worker_v1::Waiting;

/// Follows the monitored figure of the validations; lower is better.
#[derive(Debug, Clone)]
pub struct EarlyStopping {
    patience: u32,
    min_delta: f64,
    best: Option<f64>,
    reference: Option<f64>,
    waited: u32,
}

/// What one epoch's figure means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// The lowest figure so far; a tie keeps the earlier epoch, and NaN is never best.
    pub is_best: bool,
    /// Validations since the last one that fell by more than `min_delta`.
    pub waited: u32,
}

impl EarlyStopping {
    /// Stops after `patience` validations (0: never) whose figure is not more than `min_delta` below the best.
    pub fn new(patience: u32, min_delta: f64) -> Self {
        EarlyStopping {
            patience,
            min_delta,
            best: None,
            reference: None,
            waited: 0,
        }
    }

    /// Changes after how many validations to stop.
    pub fn set_patience(&mut self, patience: u32) {
        self.patience = patience;
    }

    /// Whether patience is at its end.
    pub fn is_enough(&self) -> bool {
        self.patience > 0 && self.waited >= self.patience
    }

    /// What to remember for a later process.
    pub fn state(&self) -> Waiting {
        Waiting {
            best: self.best,
            reference: self.reference,
            waited: self.waited,
        }
    }

    /// Goes on where another process was.
    pub fn restore(&mut self, state: Waiting) {
        self.best = state.best;
        self.reference = state.reference;
        self.waited = state.waited;
    }

    /// Takes the figure of the next epoch.
    pub fn observe(&mut self, loss: f64) -> Verdict {
        let is_best = loss.is_finite() && self.best.is_none_or(|best| loss < best);
        if is_best {
            self.best = Some(loss);
        }
        let improved = loss.is_finite()
            && self
                .reference
                .is_none_or(|reference| loss < reference - self.min_delta);
        if improved {
            self.reference = Some(loss);
            self.waited = 0;
        } else {
            self.waited += 1;
        }
        Verdict {
            is_best,
            waited: self.waited,
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
            (verdict.is_best, verdict.waited, stopping.is_enough())
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
