//! One pass over the training images and a validation.

use std::time::Instant;

use tch::{Device, Tensor};

use crate::{
    dataset,
    evaluation::{ErrorSums, Scored, conformal::calibrate},
    model,
    proto::{
        v1,
        worker_v1::{EpochDone, PartialEpoch},
    },
};

use super::{
    super::{
        failure::Error,
        feed::{Fed, Feed},
        process::{Control, Reporter, Wish},
        spec::SINGLE_VALUE_SIZE,
        timed,
    },
    Best, Session, duration_message, no_cache,
    scoring::{check_skipped, score, served},
};

/// How an epoch ended.
pub(in super::super) enum Pass {
    /// With its figures and, when it is the best so far, a checkpoint.
    Complete(Box<EpochDone>),
    /// Before its end, for this reason.
    Broken(v1::StopReason),
    /// In the middle: a full checkpoint is on disk.
    Paused,
}

/// What a step found, as long as it lies on the device.
struct Pending {
    loss: Tensor,
    /// Outputs `[N]` on the scale of the targets.
    output: Tensor,
    /// `[N]`, in years.
    ages: Vec<f32>,
    step: usize,
}

/// Steps that a GPU may be ahead of what is known about them: asking after each would make it wait.
const MOST_PENDING: usize = 32;

impl Session<'_> {
    /// Makes the next epoch, or the rest of one that an earlier process had begun.
    pub(in super::super) fn epoch(
        &mut self,
        reporter: &Reporter,
        control: &Control,
    ) -> Result<Pass, Error> {
        let epoch = self.epochs + 1;
        let is_broken = self.train_images(epoch, reporter, control)?;
        if let Some(pass) = is_broken {
            return Ok(pass);
        }
        let validating = Instant::now();
        self.exchange_average()?;
        let scored = self.validate(epoch, reporter, control);
        let Some(scored) = scored? else {
            if control.wish() == Wish::Pause {
                self.exchange_average()?;
                self.save()?;
                self.finish_saving()?;
                return Ok(Pass::Paused);
            }
            return Ok(Pass::Broken(v1::StopReason::UserStop));
        };
        let mut seconds = self.partial.seconds.unwrap_or_default();
        let training_seconds = seconds.total;
        seconds.validate = validating.elapsed().as_secs_f64();
        seconds.total += seconds.validate;
        let mut metrics = self.metrics(epoch, &scored, training_seconds);
        let verdict = self.stopping.observe(self.spec.monitor.of(&metrics));
        self.scheduler.validated(self.spec.monitor.of(&metrics));
        metrics.is_best = verdict.is_best;
        metrics.epochs_without_improvement = verdict.waited;
        let mut files = Vec::new();
        if verdict.is_best {
            let writing = Instant::now();
            let trained = self.export()?;
            // As it is so far: the time of writing cannot be among what is written.
            metrics.seconds = Some(seconds);
            let calibration = calibrate(&served(scored));
            files = self.write_checkpoint(&metrics, &trained, calibration.as_ref())?;
            let written = writing.elapsed().as_secs_f64();
            seconds.checkpoint += written;
            seconds.total += written;
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
        Ok(Pass::Complete(Box::new(EpochDone {
            metrics: Some(metrics),
            files,
        })))
    }

    /// Trains on what the epoch has left; how it was broken off, if it was.
    fn train_images(
        &mut self,
        epoch: u32,
        reporter: &Reporter,
        control: &Control,
    ) -> Result<Option<Pass>, Error> {
        let begun = Instant::now();
        let mut seconds = self.partial.seconds.unwrap_or_default();
        let earlier = seconds.total;
        let batch_size = self.spec.batch_size;
        let order = dataset::epoch_order(self.train.len(), self.spec.seed, u64::from(epoch));
        let first = usize::try_from(self.partial.position)
            .unwrap_or(usize::MAX)
            .min(order.len());
        let rest = order[first..].to_vec();
        let mut feed = Feed::start(
            &self.train,
            rest,
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
        for step in done..done + feed.batches() {
            let wish = control.wish();
            let is_due = self.saved.elapsed() >= self.spec.checkpoint_interval;
            if is_due || wish == Wish::Pause {
                self.settle(&mut pending, epoch)?;
                self.partial.skipped = skipped + feed.skipped().count;
                seconds.total = earlier + begun.elapsed().as_secs_f64();
                self.partial.seconds = Some(seconds);
                self.save()?;
            }
            match wish {
                Wish::GoOn if self.is_out_of_time() => {
                    return Ok(Some(Pass::Broken(v1::StopReason::MaxDuration)));
                }
                Wish::GoOn => {}
                Wish::Pause => {
                    self.finish_saving()?;
                    return Ok(Some(Pass::Paused));
                }
                Wish::Stop => return Ok(Some(Pass::Broken(v1::StopReason::UserStop))),
                Wish::Cancel | Wish::Orphaned => return Err(Error::Cancelled),
            }
            let mode = self.train_mode();
            // Taken out for the time of the call, which borrows the session too.
            let mut cache = std::mem::replace(&mut self.train_cache, no_cache());
            let fed = feed.next(self.feeder(), mode, self.device, &mut cache, &mut seconds);
            self.train_cache = cache;
            let fed = fed?;
            let Some(fed) = fed else { break };
            let taken = first + (step + 1 - done) * batch_size;
            self.partial.position = taken.min(self.train.len()) as u64;
            // A BatchNorm of layer4 would divide by the variance of a single value, which is zero.
            let is_single_value = fed.ages.len() == 1
                && self.spec.input_size <= SINGLE_VALUE_SIZE
                && !self.spec.freeze_batch_norm;
            if !fed.ages.is_empty() && !is_single_value {
                let factor = self.learning_rate_factor(epoch, step, steps);
                pending.push(self.step(fed, factor, step, &mut seconds)?);
            }
            if self.device == Device::Cpu || pending.len() >= MOST_PENDING {
                self.settle(&mut pending, epoch)?;
            }
            let report = reporter.progress(|| {
                let rate = self.partial.images as f64 / (earlier + begun.elapsed().as_secs_f64());
                self.progress("train", epoch, (step + 1, steps), rate)
            });
            report.map_err(Error::Pipe)?;
        }
        self.settle(&mut pending, epoch)?;
        self.partial.skipped = skipped + feed.skipped().count;
        check_skipped(
            self.partial.skipped,
            feed.skipped().example.as_deref(),
            epoch,
            self.train.len(),
            &self.spec,
        )?;
        if first == 0 {
            self.train_cache.complete();
        }
        seconds.total = earlier + begun.elapsed().as_secs_f64();
        self.partial.seconds = Some(seconds);
        Ok(None)
    }

    fn learning_rate_factor(&self, epoch: u32, step: usize, steps: usize) -> f64 {
        let before = u64::from(epoch - 1) * steps as u64;
        self.scheduler
            .factor(before + step as u64, steps as u64, self.spec.max_epochs)
    }

    /// Forward, backward and update on one batch.
    fn step(
        &mut self,
        fed: Fed,
        factor: f64,
        step: usize,
        seconds: &mut v1::EpochSeconds,
    ) -> Result<Pending, Error> {
        let ages = Tensor::f_from_slice(&fed.ages)
            .and_then(|ages| ages.f_to_device(self.device))
            .map_err(model::Error::from)?;
        let mode = self.train_mode();
        let output = timed(&mut seconds.forward, || {
            self.load_tail();
            let mut output = self.predict(&fed.features, mode)?;
            Ok::<_, model::Error>(match self.tail {
                // Not of autograd's making: a leaf, of which it knows the gradient to hand on.
                Some(_) => output.f_requires_grad_(true)?,
                None => output,
            })
        })?;
        let loss = self.objective.loss(&output, &ages)?;
        timed(&mut seconds.backward, || match &mut self.tail {
            Some(tail) => {
                let both = (&loss, &output);
                self.parameters.backward_through(tail, &fed.features, both)
            }
            None => self.parameters.backward(&loss),
        })?;
        timed(&mut seconds.update, || {
            self.optimizer.step(&mut self.parameters, factor)?;
            if self.average.is_some() {
                let trained = self.trained_tensors();
                if let Some(average) = &mut self.average {
                    average.update(&trained)?;
                }
            }
            Ok::<_, model::Error>(())
        })?;
        Ok(Pending {
            loss: loss.f_detach().map_err(model::Error::from)?,
            output: output.f_detach().map_err(model::Error::from)?,
            ages: fed.ages,
            step,
        })
    }

    /// Adds up what steps found.
    fn settle(&mut self, pending: &mut Vec<Pending>, epoch: u32) -> Result<(), Error> {
        for one in pending.drain(..) {
            let loss = one.loss.double_value(&[]);
            if !loss.is_finite() {
                return Err(Error::NonFiniteLoss {
                    epoch,
                    step: one.step + 1,
                    loss,
                    learning_rate: self.optimizer.learning_rate(),
                });
            }
            self.partial.objective += loss * one.ages.len() as f64;
            for scored in score(&self.objective.years(&one.output)?, &one.ages)? {
                let error = scored.predicted - scored.age;
                self.partial.images += 1;
                self.partial.squared += error.powi(2);
                self.partial.absolute += error.abs();
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
            train_loss: partial.squared / images,
            val_loss: found.mse(),
            val_rmse: found.mse().sqrt(),
            val_mae: found.mae(),
            train_mae: partial.absolute / images,
            learning_rate: self.optimizer.learning_rate() * last_step,
            images_per_second: images / training_seconds,
            train_images: partial.images,
            val_images: found.images(),
            skipped_images: partial.skipped,
            max_epochs: self.spec.max_epochs,
            eta: duration_message(remaining.max(0.0)),
            data_wait_share: waited / training_seconds,
            train_objective: partial.objective / images,
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
        let loss = self.partial.squared / self.partial.images as f64;
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
