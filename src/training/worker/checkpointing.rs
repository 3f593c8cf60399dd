//! Full checkpoints of a session: saving and restoring.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    time::{Duration, Instant},
};

use tch::{Device, Kind, Tensor};

use crate::{
    model::resnet18::{is_parameter, layout},
    proto::worker_v1::{PlateauState, TrainerRecord},
    training::{optimizer::MovingAverage, schedule::Plateau},
};

use super::{
    error::Error,
    full_checkpoint::{Restored, Snapshot},
    session::{Best, Session},
};

/// Names of tensors in a full checkpoint: prefixes of tensors by name and by number, and the flat
/// buffers.
const STATE: &str = "state/";
const AVERAGE: &str = "average/";
const PARAMETERS: &str = "parameters";
const FIRST_MOMENT: &str = "moment/1";
const SECOND_MOMENT: &str = "moment/2";

impl Session<'_> {
    /// Restores the state of an earlier process, except the tensors of the network, which are
    /// loaded already.
    pub(super) fn restore(&mut self, mut restored: Restored) -> Result<(), Error> {
        let averages: Vec<Tensor> = restored.take(AVERAGE).into_values().collect();
        let record = restored.record;
        let flat = [PARAMETERS, FIRST_MOMENT, SECOND_MOMENT].map(|name| restored.tensors.get(name));
        if let [Some(parameters), Some(first), Some(second)] = flat {
            self.parameters.restore(parameters)?;
            self.optimizer
                .restore(first, second, record.optimizer_steps)?;
        }
        if let Some(average) = &mut self.average {
            average.restore(&averages, record.average_updates)?;
        }
        self.stopping.restore(record.stopping.unwrap_or_default());
        let plateau = record.plateau.unwrap_or_default();
        self.scheduler.restore(Plateau {
            best: plateau.best.unwrap_or(f64::INFINITY),
            waited: plateau.waited,
            factor: record.plateau_factor,
        });
        self.epochs = record.epochs;
        self.partial = record.partial.unwrap_or_default();
        if self.partial.position > 0 {
            // A change since then applies from the next epoch on.
            self.optimizer.set_learning_rate(record.learning_rate);
        }
        self.last = record.last;
        self.best = record.best.zip(restored.best).map(|(metrics, all)| Best {
            metrics,
            trained: all
                .into_iter()
                .filter(|(name, _)| self.spec.trained.contains_name(name))
                .collect(),
            calibration: restored.calibration,
        });
        self.clock.restore(record.elapsed_seconds, self.done());
        tracing::info!(
            epochs = self.epochs,
            images = self.partial.position,
            "resumed from a full checkpoint"
        );
        Ok(())
    }

    /// Starts to write a full checkpoint after an epoch, unless the last one is so recent that
    /// repeating the epoch would be faster. Returns whether it was started.
    pub(super) fn save_after_epoch(&mut self) -> Result<bool, Error> {
        const MIN_INTERVAL: Duration = Duration::from_secs(1);
        if self.saved.elapsed() < MIN_INTERVAL {
            return Ok(false);
        }
        let start = Instant::now();
        self.save()?;
        // The last epoch was reported already, so the time counts towards the next one.
        let seconds = self.partial.seconds.get_or_insert_default();
        seconds.checkpoint += start.elapsed().as_secs_f64();
        seconds.total += start.elapsed().as_secs_f64();
        Ok(true)
    }

    /// Starts to write a full checkpoint, on rank 0.
    pub(super) fn save(&mut self) -> Result<(), Error> {
        if self.ranks.is_first() {
            let snapshot = self.snapshot()?;
            self.writer.start(snapshot)?;
        }
        self.saved = Instant::now();
        Ok(())
    }

    /// Captures the state of the session.
    pub(super) fn snapshot(&self) -> Result<Snapshot, Error> {
        let plateau = self.scheduler.plateau();
        let record = TrainerRecord {
            epochs: self.epochs,
            partial: Some(self.partial),
            dataset_digest: self.dataset.digest.clone(),
            optimizer_steps: self.optimizer.steps(),
            average_updates: self.average.as_ref().map_or(0, MovingAverage::updates),
            learning_rate: self.optimizer.learning_rate(),
            stopping: Some(self.stopping.state()),
            plateau: Some(PlateauState {
                best: Some(plateau.best).filter(|best| best.is_finite()),
                reference: None,
                waited: plateau.waited,
            }),
            plateau_factor: plateau.factor,
            last: self.last,
            best: self.best.as_ref().map(|best| best.metrics),
            elapsed_seconds: self.clock.elapsed().as_secs_f64(),
            initial_images: self.trained_on.initial(),
            shards: self.spec.shards as u32,
            ..Default::default()
        };
        // Trained parameters are saved as the flat buffer.
        let spec = &self.spec;
        let is_trained = |name: &str| spec.trained.contains_name(name);
        let others = self.state.iter();
        let others = others.filter(|(name, _)| !(is_parameter(name) && is_trained(name)));
        let others = others.map(|(name, tensor)| (format!("{STATE}{name}"), tensor));
        let [first, second] = self.optimizer.moments();
        let flat = [
            (PARAMETERS, self.parameters.values()),
            (FIRST_MOMENT, first),
            (SECOND_MOMENT, second),
        ];
        let flat = flat.map(|(name, tensor)| (name.to_owned(), tensor));
        let averages = self.average.iter().flat_map(MovingAverage::tensors);
        let averages = averages
            .enumerate()
            .map(|(index, tensor)| (format!("{AVERAGE}{index:03}"), tensor));
        let tensors = others.chain(flat).chain(averages);
        let snapshot = Snapshot::take(record, tensors, |name| {
            name.strip_prefix(STATE).is_none_or(is_trained)
        })?;
        Ok(snapshot)
    }

    /// Waits until the full checkpoint is on disk and reported.
    pub(super) fn finish_saving(&mut self) -> Result<(), Error> {
        Ok(self.writer.finish()?)
    }
}

/// Returns the tensors of the network from a full checkpoint. Trained parameters, which are
/// in the flat buffer, are zero.
pub(super) fn restored_state(restored: &mut Restored) -> Result<BTreeMap<String, Tensor>, Error> {
    let mut state = restored.take(STATE);
    for (name, shape) in layout(1) {
        let shape: Vec<i64> = shape.iter().map(|side| *side as i64).collect();
        if let Entry::Vacant(place) = state.entry(name) {
            let zeros = Tensor::f_zeros(&shape, (Kind::Float, Device::Cpu));
            place.insert(zeros?);
        }
    }
    Ok(state)
}
