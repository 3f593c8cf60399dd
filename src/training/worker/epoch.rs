//! Training and validation of one epoch.

use std::time::Instant;

use tch::{Device, Tensor};

use crate::{
    evaluation::{ErrorSums, Scored, conformal::calibrate},
    model::{self, resnet18::Mode},
    proto::{
        v1,
        worker_v1::{EpochCompleted, PartialEpoch},
    },
    training::{
        feature_loader::{FeatureBatch, FeatureLoader},
        shards::EpochBatches,
        timing::timed,
    },
};

use super::{
    decision::Decision,
    error::Error,
    evaluate::{check_skipped, score, served},
    link::{ControlState, EventSender},
    pass::Pass,
    session::{Best, Session, duration_message, no_cache},
    sharded::{StepPosition, is_single_value},
};

pub(super) enum EpochEnd {
    /// With metrics and, if the epoch is the best so far, a checkpoint.
    Complete(Box<EpochCompleted>),
    /// Stopped before the end of the epoch.
    Stopped(v1::StopReason),
    /// Paused before the end of the epoch, with a full checkpoint on disk.
    Paused,
}

/// Results of a step that are still on the device.
struct PendingStep {
    loss: Tensor,
    /// Outputs `[N]` on the scale of the targets.
    output: Tensor,
    /// `[N]`, in years.
    ages: Vec<f32>,
    step: usize,
}

/// Steps whose results may stay on a GPU: reading them after each step would stall it.
const MAX_PENDING: usize = 32;

impl Session<'_> {
    /// Runs the next epoch, or the rest of one that an earlier process started.
    pub(super) fn epoch(
        &mut self,
        events: &EventSender,
        control: &ControlState,
    ) -> Result<EpochEnd, Error> {
        let epoch = self.epochs + 1;
        if let Some(end) = self.train_images(epoch, events, control)? {
            return Ok(end);
        }
        let validation_start = Instant::now();
        self.exchange_average()?;
        let scored = match self.validate(epoch, events, control)? {
            Pass::Complete(scored, _) => scored,
            Pass::Paused => {
                self.exchange_average()?;
                self.save()?;
                self.finish_saving()?;
                return Ok(EpochEnd::Paused);
            }
            Pass::Stopped => return Ok(EpochEnd::Stopped(v1::StopReason::UserStop)),
        };
        let mut seconds = self.partial.seconds.unwrap_or_default();
        let training_seconds = seconds.total;
        seconds.validate = validation_start.elapsed().as_secs_f64();
        seconds.total += seconds.validate;
        let mut metrics = self.metrics(epoch, &scored, training_seconds);
        let verdict = self.stopping.observe(self.spec.monitor.of(&metrics));
        self.scheduler.observe(self.spec.monitor.of(&metrics));
        metrics.is_best = verdict.is_best;
        metrics.epochs_without_improvement = verdict.waited;
        let mut files = Vec::new();
        if verdict.is_best && self.ranks.is_first() {
            let write_start = Instant::now();
            let trained = self.export()?;
            // Without the time of writing, which is not known yet.
            metrics.seconds = Some(seconds);
            let calibration = calibrate(&served(scored));
            files = self.write_checkpoint(&metrics, &trained, calibration.as_ref())?;
            let elapsed = write_start.elapsed().as_secs_f64();
            seconds.checkpoint += elapsed;
            seconds.total += elapsed;
            self.best = Some(Best {
                metrics,
                trained,
                calibration,
            });
        }
        metrics.seconds = Some(seconds);
        if let Some(best) = self
            .best
            .as_mut()
            .filter(|best| best.metrics.epoch == epoch)
        {
            best.metrics = metrics;
        }
        self.exchange_average()?;
        self.epochs = epoch;
        self.partial = PartialEpoch::default();
        self.last = Some(metrics);
        Ok(EpochEnd::Complete(Box::new(EpochCompleted {
            metrics: Some(metrics),
            files,
        })))
    }

    /// Trains on the remaining images of the epoch; returns how it ended if it ended early.
    fn train_images(
        &mut self,
        epoch: u32,
        events: &EventSender,
        control: &ControlState,
    ) -> Result<Option<EpochEnd>, Error> {
        let start = Instant::now();
        let mut seconds = self.partial.seconds.unwrap_or_default();
        let earlier = seconds.total;
        let batch_size = self.spec.batch_size;
        let first = usize::try_from(self.partial.position)
            .unwrap_or(usize::MAX)
            .min(self.train.len());
        let batches = EpochBatches {
            images: self.train.len(),
            shards: self.spec.shards,
            batch_size,
            seed: self.spec.seed,
            epoch,
        };
        let own = self.ranks.own(self.spec.shards);
        let batches = batches.after(first, own.clone());
        let remaining = batches.len() / own.len();
        let mut loader = FeatureLoader::start(
            &self.train,
            batches,
            &self.loader,
            self.draws(epoch),
            &self.train_cache,
        );
        let (done, steps) = (
            first.div_ceil(batch_size),
            self.train.len().div_ceil(batch_size),
        );
        let skipped = self.partial.skipped;
        let mut pending = Vec::new();
        for step in done..done + remaining {
            let decision = self.decide(control)?;
            let is_due = self.saved.elapsed() >= self.spec.checkpoint_interval;
            if is_due || decision == Decision::Pause {
                self.collect_losses(&mut pending, epoch)?;
                seconds.total = earlier + start.elapsed().as_secs_f64();
                self.partial.seconds = Some(seconds);
                self.save()?;
            }
            match decision {
                Decision::OutOfTime => {
                    return Ok(Some(EpochEnd::Stopped(v1::StopReason::MaxDuration)));
                }
                Decision::Continue => {}
                Decision::Pause => {
                    self.finish_saving()?;
                    return Ok(Some(EpochEnd::Paused));
                }
                Decision::Stop => {
                    return Ok(Some(EpochEnd::Stopped(v1::StopReason::UserStop)));
                }
                Decision::Cancel => return Err(Error::Cancelled),
            }
            let factor = self.learning_rate_factor(epoch, step, steps);
            // Taken out, because the call borrows the session too.
            if let Some(mut sharding) = self.sharding.take() {
                let position = StepPosition {
                    epoch,
                    step,
                    factor,
                };
                let (loader, seconds) = (&mut loader, &mut seconds);
                self.step_on_shards(&mut sharding, loader, position, control, seconds)?;
                self.sharding = Some(sharding);
            } else {
                let Some(batch) = self.next_batch(&mut loader, &mut seconds)? else {
                    break;
                };
                if !batch.ages.is_empty() && !is_single_value(&batch, &self.spec) {
                    pending.push(self.step(batch, factor, step, &mut seconds)?);
                }
                self.partial.skipped = skipped + loader.skipped().count;
            }
            let taken = first + (step + 1 - done) * batch_size;
            self.partial.position = taken.min(self.train.len()) as u64;
            if self.device == Device::Cpu || pending.len() >= MAX_PENDING {
                self.collect_losses(&mut pending, epoch)?;
            }
            events.progress(|| {
                let rate = self.partial.images as f64 / (earlier + start.elapsed().as_secs_f64());
                self.progress("train", epoch, (step + 1, steps), rate)
            })?;
        }
        self.collect_losses(&mut pending, epoch)?;
        check_skipped(
            self.partial.skipped,
            loader.skipped().example.as_deref(),
            epoch,
            self.train.len(),
            &self.spec,
        )?;
        if first == 0 {
            self.train_cache.complete();
        }
        seconds.total = earlier + start.elapsed().as_secs_f64();
        self.partial.seconds = Some(seconds);
        Ok(None)
    }

    fn learning_rate_factor(&self, epoch: u32, step: usize, steps: usize) -> f64 {
        let before = u64::from(epoch - 1) * steps as u64;
        self.scheduler
            .factor(before + step as u64, steps as u64, self.spec.max_epochs)
    }

    /// Returns the features of the next batch; `None` at the end.
    pub(super) fn next_batch(
        &mut self,
        loader: &mut FeatureLoader,
        seconds: &mut v1::EpochSeconds,
    ) -> Result<Option<FeatureBatch>, Error> {
        // Taken out, because the call borrows the session too.
        let mut cache = std::mem::replace(&mut self.train_cache, no_cache());
        let (extractor, mode) = (self.feature_extractor(), self.train_mode());
        let batch = loader.next(extractor, mode, self.device, &mut cache, seconds);
        self.train_cache = cache;
        Ok(batch?)
    }

    /// Forward, backward and update on one batch.
    fn step(
        &mut self,
        batch: FeatureBatch,
        factor: f64,
        step: usize,
        seconds: &mut v1::EpochSeconds,
    ) -> Result<PendingStep, Error> {
        let mode = self.train_mode();
        let (loss, output) = self.differentiate(&batch, mode, 1.0, seconds)?;
        timed(&mut seconds.update, || self.update_parameters(factor))?;
        Ok(PendingStep {
            loss,
            output,
            ages: batch.ages,
            step,
        })
    }

    /// Computes the gradient of the mean loss of a batch, multiplied by `share`. Returns the mean
    /// loss and the outputs, `[N]`, without gradients.
    pub(super) fn differentiate(
        &mut self,
        batch: &FeatureBatch,
        mode: Mode,
        share: f64,
        seconds: &mut v1::EpochSeconds,
    ) -> Result<(Tensor, Tensor), Error> {
        let ages =
            Tensor::f_from_slice(&batch.ages).and_then(|ages| ages.f_to_device(self.device))?;
        let output = timed(&mut seconds.forward, || {
            self.load_fused();
            let mut output = self.predict(&batch.features, mode)?;
            Ok::<_, model::Error>(match self.fused {
                // A leaf: autograd computes the gradient up to here only.
                Some(_) => output.f_requires_grad_(true)?,
                None => output,
            })
        })?;
        let loss = self.loss.forward(&output, &ages)?;
        let scaled = if share == 1.0 {
            loss.shallow_clone()
        } else {
            loss.f_mul_scalar(share)?
        };
        timed(&mut seconds.backward, || match &mut self.fused {
            Some(fused) => {
                let both = (&scaled, &output);
                self.parameters
                    .backward_through(fused, &batch.features, both)
            }
            None => self.parameters.backward(&scaled),
        })?;
        Ok((loss.f_detach()?, output.f_detach()?))
    }

    /// Updates the parameters and their moving average with the gradient.
    pub(super) fn update_parameters(&mut self, factor: f64) -> Result<(), Error> {
        self.optimizer.step(&mut self.parameters, factor)?;
        if self.average.is_some() {
            let trained = self.trained_tensors();
            if let Some(average) = &mut self.average {
                average.update(&trained)?;
            }
        }
        Ok(())
    }

    /// Reads the results of steps from the device and adds them up.
    fn collect_losses(&mut self, pending: &mut Vec<PendingStep>, epoch: u32) -> Result<(), Error> {
        for pending in pending.drain(..) {
            let loss = pending.loss.double_value(&[]);
            if !loss.is_finite() {
                return Err(Error::NonFiniteLoss {
                    epoch,
                    step: pending.step + 1,
                    loss,
                    learning_rate: self.optimizer.learning_rate(),
                });
            }
            self.partial.sum_loss += loss * pending.ages.len() as f64;
            for scored in score(&self.loss.years(&pending.output)?, &pending.ages)? {
                let error = scored.predicted - scored.age;
                self.partial.images += 1;
                self.partial.sum_squared_error += error.powi(2);
                self.partial.sum_absolute_error += error.abs();
            }
        }
        Ok(())
    }

    fn metrics(&self, epoch: u32, scored: &[Scored], training_seconds: f64) -> v1::EpochMetrics {
        let found: ErrorSums = scored.iter().copied().collect();
        let partial = &self.partial;
        let images = partial.images as f64;
        let steps = self.train.len().div_ceil(self.spec.batch_size);
        let last_step = self.learning_rate_factor(epoch, steps - 1, steps);
        let remaining = self.clock.remaining(f64::from(epoch), self.spec.max_epochs);
        let waited = partial.seconds.unwrap_or_default().data;
        v1::EpochMetrics {
            epoch,
            attempt: self.job.attempt,
            train_loss: partial.sum_squared_error / images,
            val_loss: found.mse(),
            val_rmse: found.mse().sqrt(),
            val_mae: found.mae(),
            train_mae: partial.sum_absolute_error / images,
            learning_rate: self.optimizer.learning_rate() * last_step,
            images_per_second: images / training_seconds,
            train_images: partial.images,
            val_images: found.images(),
            skipped_images: partial.skipped,
            max_epochs: self.spec.max_epochs,
            eta: duration_message(remaining.max(0.0)),
            data_wait_share: waited / training_seconds,
            train_objective: partial.sum_loss / images,
            ..Default::default()
        }
    }

    fn progress(
        &self,
        phase: &str,
        epoch: u32,
        (step, steps): (usize, usize),
        images_per_second: f64,
    ) -> v1::Progress {
        let done = self.done();
        let loss = self.partial.sum_squared_error / self.partial.images as f64;
        v1::Progress {
            epoch,
            max_epochs: self.spec.max_epochs,
            step: step as u32,
            steps: steps as u32,
            phase: phase.to_owned(),
            fraction: done / f64::from(self.spec.max_epochs),
            eta: duration_message(self.clock.remaining(done, self.spec.max_epochs)),
            images_per_second,
            train_loss: Some(loss).filter(|loss| loss.is_finite()),
        }
    }
}
