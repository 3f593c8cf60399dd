//! A training step whose batch is divided into shards.

use tch::Tensor;

use crate::{
    model::resnet18::Mode,
    proto::v1,
    training::{
        feature_loader::{FeatureBatch, FeatureLoader},
        shards::{RunningStatistics, TreeSum},
        timing::timed,
    },
};

use super::{epoch::is_single_value, error::Error, evaluate::score, session::Session};

/// State of the steps of a training with shards.
#[derive(Debug)]
pub(super) struct Sharding {
    pub(super) gradients: TreeSum,
    pub(super) running: RunningStatistics,
}

/// Position of a step in the training.
#[derive(Debug, Clone, Copy)]
pub(super) struct StepPosition {
    pub(super) epoch: u32,
    pub(super) step: usize,
    /// Factor of the schedule on the learning rate.
    pub(super) factor: f64,
}

/// Results of a shard in one step.
#[derive(Debug, Default)]
struct ShardResult {
    /// Images that were computed.
    images: u64,
    /// Mean loss of these images.
    loss: f64,
    /// In squared years.
    sum_squared_error: f64,
    /// In years.
    sum_absolute_error: f64,
    /// Means and variances of the BatchNorms.
    statistics: Vec<f32>,
}

impl Session<'_> {
    /// Computes the shards of a batch and updates the parameters with the sum of their gradients.
    pub(super) fn step_on_shards(
        &mut self,
        sharding: &mut Sharding,
        loader: &mut FeatureLoader,
        position: StepPosition,
        seconds: &mut v1::EpochSeconds,
    ) -> Result<(), Error> {
        let before = sharding.running.read()?;
        let mut results = Vec::with_capacity(self.spec.shards);
        for _ in 0..self.spec.shards {
            let batch = self.next_batch(loader, seconds)?;
            let batch = batch.expect("an epoch has a batch for each shard of each step");
            let mut result = self.compute_shard(batch, seconds)?;
            if result.images > 0 {
                result.statistics = sharding.running.read()?;
            }
            timed(&mut seconds.backward, || {
                sharding.gradients.add(&self.parameters.gradient)
            })?;
            results.push(result);
        }
        self.apply(sharding, &results, &before, position, seconds)
    }

    /// Computes the gradient of a shard's share of the loss. Without readable images it is zero.
    fn compute_shard(
        &mut self,
        batch: FeatureBatch,
        seconds: &mut v1::EpochSeconds,
    ) -> Result<ShardResult, Error> {
        if batch.ages.is_empty() || is_single_value(&batch, &self.spec) {
            tch::no_grad(|| self.parameters.gradient.f_zero_().map(drop))?;
            return Ok(ShardResult::default());
        }
        let mode = match self.train_mode() {
            Mode::Train => Mode::TrainShard,
            other @ (Mode::TrainShard | Mode::Eval) => other,
        };
        let images = batch.ages.len();
        // The sum over all shards is the mean over a batch without unreadable images.
        let share = images as f64 / self.spec.batch_size as f64;
        let (loss, output) = self.differentiate(&batch, mode, share, seconds)?;
        let mut result = ShardResult {
            images: images as u64,
            loss: loss.double_value(&[]),
            ..Default::default()
        };
        for scored in score(&self.loss.years(&output)?, &batch.ages)? {
            let error = scored.predicted - scored.age;
            result.sum_squared_error += error.powi(2);
            result.sum_absolute_error += error.abs();
        }
        Ok(result)
    }

    /// Updates the parameters and the running statistics with the results of all shards.
    fn apply(
        &mut self,
        sharding: &mut Sharding,
        results: &[ShardResult],
        before: &[f32],
        position: StepPosition,
        seconds: &mut v1::EpochSeconds,
    ) -> Result<(), Error> {
        let StepPosition {
            epoch,
            step,
            factor,
        } = position;
        let mut images = 0;
        for result in results.iter().filter(|result| result.images > 0) {
            if !result.loss.is_finite() {
                return Err(Error::NonFiniteLoss {
                    epoch,
                    step: step + 1,
                    loss: result.loss,
                    learning_rate: self.optimizer.learning_rate(),
                });
            }
            images += result.images;
            self.partial.images += result.images;
            self.partial.sum_loss += result.loss * result.images as f64;
            self.partial.sum_squared_error += result.sum_squared_error;
            self.partial.sum_absolute_error += result.sum_absolute_error;
        }
        let factor_of_sum = match images {
            0 => 1.0,
            images => self.spec.batch_size as f64 / images as f64,
        };
        let gradient: &mut Tensor = &mut self.parameters.gradient;
        sharding.gradients.finish(factor_of_sum, gradient)?;
        if images == 0 {
            return Ok(());
        }
        if self.train_mode() == Mode::Train {
            let computed = results.iter().filter(|result| result.images > 0);
            let shards: Vec<(u64, &[f32])> = computed
                .map(|result| (result.images, result.statistics.as_slice()))
                .collect();
            sharding.running.update(before, &shards)?;
        }
        timed(&mut seconds.update, || self.update_parameters(factor))
    }
}

impl Sharding {
    pub(super) fn new(running: RunningStatistics) -> Self {
        Sharding {
            gradients: TreeSum::default(),
            running,
        }
    }
}
