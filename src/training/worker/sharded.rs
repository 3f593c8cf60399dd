//! A training step whose batch is divided into shards, and the shards between ranks.

use tch::Tensor;

use crate::{
    model::resnet18::Mode,
    proto::v1,
    training::{
        feature_loader::{FeatureBatch, FeatureLoader},
        shards::Sharding,
        spec::{SINGLE_VALUE_SIZE, Spec},
        timing::timed,
    },
};

use super::{
    decision::Decision, error::Error, evaluate::score, link::ControlState, session::Session,
};

/// Position of a step in the training.
#[derive(Debug, Clone, Copy)]
pub(super) struct StepPosition {
    pub(super) epoch: u32,
    pub(super) step: usize,
    /// Factor of the schedule on the learning rate.
    pub(super) factor: f64,
}

/// Results of a shard in one step.
#[derive(Debug, Clone, Default, PartialEq)]
struct ShardResult {
    /// Images that were computed.
    images: u64,
    /// Unreadable images.
    skipped: u64,
    /// Mean loss of the computed images.
    loss: f64,
    /// In squared years.
    sum_squared_error: f64,
    /// In years.
    sum_absolute_error: f64,
    /// Means and variances of the BatchNorms; zero without images.
    statistics: Vec<f32>,
}

impl Session<'_> {
    /// Computes this rank's shards of a batch, and updates the parameters with the gradients of
    /// all.
    pub(super) fn step_on_shards(
        &mut self,
        sharding: &mut Sharding,
        loader: &mut FeatureLoader,
        position: StepPosition,
        control: &ControlState,
        seconds: &mut v1::EpochSeconds,
    ) -> Result<(), Error> {
        let before = sharding.running.read()?;
        let mut bytes = vec![self.own_decision(control).code()];
        for _ in self.ranks.own(self.spec.shards) {
            let skipped = loader.skipped().count;
            let batch = self.next_batch(loader, seconds)?;
            let batch = batch.expect("an epoch has a batch for each shard of each step");
            let mut result = self.compute_shard(batch, seconds)?;
            result.skipped = loader.skipped().count - skipped;
            result.statistics = if result.images > 0 {
                sharding.running.read()?
            } else {
                vec![0.0; before.len()]
            };
            timed(&mut seconds.backward, || {
                sharding.gradients.add(&self.parameters.gradient)
            })?;
            result.encode(&mut bytes);
        }
        let own = bytes.len();
        let all = self.ranks.gather_equal(bytes)?;
        if self.ranks.count() > 1 {
            self.agreed = all.first().map(|code| Decision::of_code(*code));
        }
        let results: Vec<ShardResult> = all
            .chunks(own)
            .flat_map(|rank| rank[1..].chunks(ShardResult::size(before.len())))
            .map(ShardResult::decode)
            .collect();
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
        let mut images = 0;
        for result in results {
            self.partial.skipped += result.skipped;
            if result.images == 0 {
                continue;
            }
            if !result.loss.is_finite() {
                return Err(Error::NonFiniteLoss {
                    epoch: position.epoch,
                    step: position.step + 1,
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
        let gradient: &mut Tensor = &mut self.parameters.gradient;
        sharding.gradients.finish(gradient)?;
        if images == 0 {
            return Ok(());
        }
        timed(&mut seconds.backward, || self.ranks.sum(gradient))?;
        if images as usize != self.spec.batch_size {
            let factor = self.spec.batch_size as f64 / images as f64;
            tch::no_grad(|| gradient.f_mul_scalar_(factor).map(drop))?;
        }
        if self.train_mode() == Mode::Train {
            let computed = results.iter().filter(|result| result.images > 0);
            let shards: Vec<(u64, &[f32])> = computed
                .map(|result| (result.images, result.statistics.as_slice()))
                .collect();
            sharding.running.update(before, &shards)?;
        }
        timed(&mut seconds.update, || {
            self.update_parameters(position.factor)
        })
    }
}

/// Returns whether a BatchNorm of layer4 would divide by the variance of a single value, which is
/// zero.
pub(super) fn is_single_value(batch: &FeatureBatch, spec: &Spec) -> bool {
    batch.ages.len() == 1 && spec.input_size <= SINGLE_VALUE_SIZE && !spec.freeze_batch_norm
}

impl ShardResult {
    /// Size of an encoded result in bytes.
    fn size(statistics: usize) -> usize {
        5 * 8 + 4 * statistics
    }

    fn encode(&self, bytes: &mut Vec<u8>) {
        for number in [self.images, self.skipped] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        for number in [self.loss, self.sum_squared_error, self.sum_absolute_error] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        for number in &self.statistics {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
    }

    /// Reverts [`ShardResult::encode`].
    fn decode(bytes: &[u8]) -> Self {
        let (numbers, statistics) = bytes.split_at(Self::size(0));
        let (numbers, _) = numbers.as_chunks::<8>();
        let (statistics, _) = statistics.as_chunks::<4>();
        ShardResult {
            images: u64::from_le_bytes(numbers[0]),
            skipped: u64::from_le_bytes(numbers[1]),
            loss: f64::from_le_bytes(numbers[2]),
            sum_squared_error: f64::from_le_bytes(numbers[3]),
            sum_absolute_error: f64::from_le_bytes(numbers[4]),
            statistics: statistics
                .iter()
                .map(|one| f32::from_le_bytes(*one))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ShardResult;

    #[test]
    fn results_arrive_bit_by_bit() {
        let result = ShardResult {
            images: 7,
            skipped: 1,
            loss: 0.1 + 0.2,
            sum_squared_error: f64::MIN_POSITIVE,
            sum_absolute_error: 1e300,
            statistics: vec![0.1, -0.0, f32::MAX],
        };
        let mut bytes = Vec::new();
        result.encode(&mut bytes);
        assert_eq!(bytes.len(), ShardResult::size(3));
        let decoded = ShardResult::decode(&bytes);
        assert_eq!(decoded, result);
        assert!(decoded.statistics[1].is_sign_negative());
    }
}
