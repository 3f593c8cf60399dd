//! The figures of a validation that can choose the best epoch, stop a training or end it as good enough.

use crate::proto::v1;

/// A figure of a validation; lower is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// Mean squared error in squared years.
    ValLoss,
    /// Its square root, in years.
    ValRmse,
    /// Mean absolute error in years.
    ValMae,
}

impl Metric {
    /// The figure of an epoch.
    pub fn of(self, metrics: &v1::EpochMetrics) -> f64 {
        match self {
            Metric::ValLoss => metrics.val_loss,
            Metric::ValRmse => metrics.val_rmse,
            Metric::ValMae => metrics.val_mae,
        }
    }
}
