//! State of a training from its first epoch to its last.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use tch::{Device, Tensor};

use crate::{
    dataset::{Dataset, Sample},
    model::{
        self,
        calibration::Calibration,
        fused::TrainableLayers,
        resnet18::{Mode, ResNet18},
    },
    proto::{
        v1,
        worker_v1::{Job, PartialEpoch},
    },
    training::{
        data_loader::{Draws, LabelledImage, LoaderOptions},
        early_stopping::EarlyStopping,
        feature_cache::{CacheLocation, FeatureCache},
        loss::Loss,
        metric::Metric,
        optimizer::{MovingAverage, Optimizer},
        parameters::FlatParameters,
        ranks::Ranks,
        schedule::Scheduler,
        shards::Sharding,
        spec::{Changes, Spec},
    },
};

use super::{
    clock::Clock, decision::Decision, error::Error, full_checkpoint::Writer, trained_on::TrainedOn,
};

pub(super) struct Session<'a> {
    pub(super) job: &'a Job,
    pub(super) spec: Spec,
    pub(super) dataset: &'a Dataset,
    pub(super) device: Device,
    /// All tensors of the network by name; those of trained parameters are views of `parameters`.
    pub(super) state: BTreeMap<String, Tensor>,
    pub(super) network: ResNet18,
    /// Own kernels for the trained layers, if they are faster than libtorch on this CPU.
    pub(super) fused: Option<TrainableLayers>,
    pub(super) parameters: FlatParameters,
    pub(super) optimizer: Optimizer,
    pub(super) average: Option<MovingAverage>,
    /// `None` with a single shard.
    pub(super) sharding: Option<Sharding>,
    /// Processes that divide the shards.
    pub(super) ranks: Ranks,
    /// Decision for the next step, if the last one contained it.
    pub(super) agreed: Option<Decision>,
    pub(super) loss: Loss,
    pub(super) scheduler: Scheduler,
    pub(super) stopping: EarlyStopping,
    pub(super) train: Arc<Vec<LabelledImage>>,
    pub(super) train_cache: FeatureCache,
    pub(super) validation: Arc<Vec<LabelledImage>>,
    pub(super) validation_cache: FeatureCache,
    pub(super) loader: LoaderOptions,
    pub(super) mean_age: f64,
    pub(super) trained_on: TrainedOn,
    /// The weights are initial ones that predict ages without training.
    pub(super) predicts_ages: bool,
    /// Complete epochs.
    pub(super) epochs: u32,
    /// Progress of the current epoch.
    pub(super) partial: PartialEpoch,
    pub(super) last: Option<v1::EpochMetrics>,
    pub(super) best: Option<Best>,
    pub(super) clock: Clock,
    pub(super) writer: Writer,
    /// Time of the latest full checkpoint.
    pub(super) saved: Instant,
}

/// Metrics and weights of the best epoch.
pub(super) struct Best {
    pub(super) metrics: v1::EpochMetrics,
    /// Tensors of trained layers as exported: in years, averaged if the spec sets a decay.
    pub(super) trained: BTreeMap<String, Tensor>,
    pub(super) calibration: Option<Calibration>,
}

impl Session<'_> {
    /// Returns the reason not to train another epoch, if any.
    pub(super) fn stop_reason(&self) -> Option<v1::StopReason> {
        let is_target_reached = |(metric, value): (Metric, f64)| {
            let last = self.last.as_ref().map(|last| metric.of(last));
            last.is_some_and(|last| last <= value)
        };
        if self.spec.target.is_some_and(is_target_reached) {
            Some(v1::StopReason::TargetReached)
        } else if self.epochs >= self.spec.max_epochs {
            Some(v1::StopReason::MaxEpochs)
        } else if self.stopping.is_exhausted() {
            Some(v1::StopReason::EarlyStopped)
        } else if self.epochs > 0 && self.clock.is_out_of_time() {
            Some(v1::StopReason::MaxDuration)
        } else {
            None
        }
    }

    /// Learning rate before the schedule.
    pub(super) fn learning_rate(&self) -> f64 {
        self.optimizer.learning_rate()
    }

    pub(super) fn is_within_epoch(&self) -> bool {
        self.partial.position > 0
    }

    /// Time spent on the current epoch by all processes.
    pub(super) fn spent(&self) -> v1::EpochSeconds {
        self.partial.seconds.unwrap_or_default()
    }

    pub(super) fn has_best(&self) -> bool {
        self.best.is_some()
    }

    /// Applies changes of the spec; to be called between two epochs.
    pub(super) fn change(&mut self, changes: Changes) {
        if let Some(epochs) = changes.max_epochs {
            self.spec.max_epochs = epochs;
        }
        if let Some(patience) = changes.patience {
            self.spec.patience = patience;
            self.stopping.set_patience(patience);
        }
        if let Some(rate) = changes.learning_rate {
            self.spec.optimizer.learning_rate = rate;
        }
        // Without a change too: a process that resumed within an epoch finished it at the old rate.
        let rate = self.spec.optimizer.learning_rate;
        self.optimizer.set_learning_rate(rate);
    }

    /// Returns the tensors of the moving average: the flat parameters, then the running statistics
    /// of trained layers. They share memory with the session.
    pub(super) fn trained_tensors(&self) -> Vec<Tensor> {
        let statistics = self.state.iter().filter(|(name, _)| {
            let is_statistic = name.ends_with("running_mean") || name.ends_with("running_var");
            is_statistic && self.spec.trained.contains_name(name)
        });
        let statistics = statistics.map(|(_, tensor)| tensor.shallow_clone());
        std::iter::once(self.parameters.values().shallow_clone())
            .chain(statistics)
            .collect()
    }

    /// Exchanges the trained tensors with their moving average, if there is one.
    pub(super) fn exchange_average(&mut self) -> Result<(), Error> {
        let mut trained = self.trained_tensors();
        let Some(average) = &mut self.average else {
            return Ok(());
        };
        average.exchange(&mut trained)?;
        Ok(self.parameters.update_rounded()?)
    }

    /// Runs the trained layers on features `[N, C, S, S]`, or on images `[N, 3, S, S]` if all
    /// layers are trained; returns `[N]`. Call [`Session::load_fused`] first if the parameters
    /// changed.
    pub(super) fn predict(
        &mut self,
        features: &Tensor,
        mode: Mode,
    ) -> Result<Tensor, model::Error> {
        match &mut self.fused {
            Some(fused) => fused.forward(features, self.parameters.values(), mode),
            None => self
                .network
                .forward_features(features.shallow_clone(), mode),
        }
    }

    /// Returns the network that computes features, or `None` if the trained layers take images.
    pub(super) fn feature_extractor(&self) -> Option<&ResNet18> {
        let fused = self.fused.as_ref();
        let takes_images = fused.is_some_and(TrainableLayers::takes_images);
        (!takes_images).then_some(&self.network)
    }

    /// Copies the parameters into the layout of the own kernels.
    pub(super) fn load_fused(&mut self) {
        if let Some(fused) = &mut self.fused {
            fused.load(self.parameters.values());
        }
    }

    pub(super) fn draws(&self, epoch: u32) -> Draws {
        Draws {
            augmentation: self.spec.augmentation,
            seed: self.spec.seed,
            epoch,
        }
    }

    /// Mode of the trained BatchNorms during training.
    pub(super) fn train_mode(&self) -> Mode {
        if self.spec.freeze_batch_norm {
            Mode::Eval
        } else {
            Mode::Train
        }
    }

    /// Epochs done, with the share of the current one.
    pub(super) fn done(&self) -> f64 {
        let share = self.partial.position as f64 / self.train.len().max(1) as f64;
        f64::from(self.epochs) + share
    }
}

/// Returns a cache for a pass whose features are not needed again.
pub(super) fn no_cache() -> FeatureCache {
    FeatureCache::new(CacheLocation::None, Device::Cpu, 0, PathBuf::new())
}

pub(super) fn images(samples: &[Sample]) -> Arc<Vec<LabelledImage>> {
    let image = |sample: &Sample| LabelledImage {
        path: sample.path.clone(),
        age: sample.age,
    };
    Arc::new(samples.iter().map(image).collect())
}

pub(super) fn duration_message(seconds: f64) -> Option<prost_types::Duration> {
    let duration = Duration::try_from_secs_f64(seconds).ok()?;
    prost_types::Duration::try_from(duration).ok()
}
