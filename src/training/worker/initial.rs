//! Validation of initial weights that predict ages, before the first step.
//!
//! It shows whether the training improves the network. The pass only reads: parameters, statistics
//! and the state of the optimizer stay as they are, and the features that it caches are those that
//! the first epoch would compute.

use std::time::Instant;

use crate::{
    evaluation::ErrorSums,
    proto::{
        v1,
        worker_v1::{EpochCompleted, Finished, worker_event},
    },
};

use super::{
    error::Error,
    link::{ControlState, EventSender},
    pass::Pass,
    session::Session,
    trainer::paused,
};

impl Session<'_> {
    /// Validates the initial weights and reports the metrics as epoch 0. Returns the end of the
    /// process if the training is to pause: it has nothing to save, and starts again later.
    ///
    /// # Errors
    /// A stop or a cancel, or a failure of the pass.
    pub(super) fn validate_initial(
        &mut self,
        events: &EventSender,
        control: &ControlState,
    ) -> Result<Option<Finished>, Error> {
        if !self.predicts_ages {
            return Ok(None);
        }
        let start = Instant::now();
        let scored = match self.validate(0, events, control)? {
            Pass::Complete(scored, _) => scored,
            Pass::Paused => return Ok(Some(paused())),
            Pass::Stopped => return Err(Error::Cancelled),
        };
        let found: ErrorSums = scored.into_iter().collect();
        let seconds = start.elapsed().as_secs_f64();
        self.clock.start_epochs();
        tracing::info!(mae = found.mae(), seconds, "initial weights validated");
        if found.mse().is_finite() {
            let metrics = v1::EpochMetrics {
                epoch: 0,
                attempt: self.job.attempt,
                val_loss: found.mse(),
                val_rmse: found.mse().sqrt(),
                val_mae: found.mae(),
                val_images: found.images(),
                max_epochs: self.spec.max_epochs,
                seconds: Some(v1::EpochSeconds {
                    validate: seconds,
                    total: seconds,
                    ..Default::default()
                }),
                ..Default::default()
            };
            events.send(worker_event::Kind::Epoch(EpochCompleted {
                metrics: Some(metrics),
                files: Vec::new(),
            }))?;
        }
        Ok(None)
    }
}
