//! Validation metrics that select the best epoch, stop a training early or reach its target.

use crate::proto::v1;

/// A validation metric; lower is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Metric {
    /// Mean squared error in squared years.
    Loss,
    /// Root mean squared error in years.
    Rmse,
    /// Mean absolute error in years.
    Mae,
}

impl Metric {
    pub(super) fn of(self, metrics: &v1::EpochMetrics) -> f64 {
        match self {
            Metric::Loss => metrics.val_loss,
            Metric::Rmse => metrics.val_rmse,
            Metric::Mae => metrics.val_mae,
        }
    }
}
