//! Validation metrics that select the best epoch, stop a training early or reach its target.

use crate::proto::v1;

/// A validation metric; lower is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Metric {
    /// Mean squared error in squared years.
    ValLoss,
    /// Root mean squared error in years.
    ValRmse,
    /// Mean absolute error in years.
    ValMae,
}

impl Metric {
    pub(super) fn of(self, metrics: &v1::EpochMetrics) -> f64 {
        match self {
            Metric::ValLoss => metrics.val_loss,
            Metric::ValRmse => metrics.val_rmse,
            Metric::ValMae => metrics.val_mae,
        }
    }
}
