//! What is kept of a training: full checkpoints to go on from, and the checkpoints that are served.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    path::Path,
    time::{Duration, Instant},
};

use tch::{Device, Kind, Tensor};

use crate::{
    imaging::DECODER_REVISION,
    model::{
        self,
        calibration::Calibration,
        checkpoint::{self, DatasetRecord, LabelScale, Manifest},
        description::ARCHITECTURE,
        resnet18::{is_parameter, layout},
    },
    proto::{
        self, v1,
        worker_v1::{TrainerRecord, Waiting, WorkerFile},
    },
};

use super::{
    super::{
        failure::Error,
        full_checkpoint::{Restored, Snapshot},
        objective::YEARS,
        optimizer::Average,
        schedule::Plateau,
    },
    Best, Session,
};

/// Names of a full checkpoint's tensors: prefixes of those by name and by number, and the flat buffers.
const STATE: &str = "state/";
const AVERAGE: &str = "average/";
const PARAMETERS: &str = "parameters";
const FIRST_MOMENT: &str = "moment/1";
const SECOND_MOMENT: &str = "moment/2";

impl Session<'_> {
    /// Goes on where an earlier process was; the network's tensors are in place already.
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
            // What was changed since counts from the next epoch on.
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
        self.clock.earlier =
            Duration::try_from_secs_f64(record.elapsed_seconds).unwrap_or_default();
        self.clock.first_done = self.done();
        tracing::info!(
            epochs = self.epochs,
            images = self.partial.position,
            "goes on from the last full checkpoint"
        );
        Ok(())
    }

    /// Begins to write a full checkpoint after an epoch, and says whether it did. Epochs of less than a second are made again sooner than their checkpoints
    /// are written.
    pub(in super::super) fn save_after_epoch(&mut self) -> Result<bool, Error> {
        const SHORTEST: Duration = Duration::from_secs(1);
        if self.saved.elapsed() < SHORTEST {
            return Ok(false);
        }
        let begun = Instant::now();
        self.save()?;
        // The epoch before has been told, so the next one bears the time.
        let seconds = self.partial.seconds.get_or_insert_default();
        seconds.checkpoint += begun.elapsed().as_secs_f64();
        seconds.total += begun.elapsed().as_secs_f64();
        Ok(true)
    }

    /// Begins to write a full checkpoint.
    pub(super) fn save(&mut self) -> Result<(), Error> {
        let plateau = self.scheduler.plateau();
        let record = TrainerRecord {
            epochs: self.epochs,
            partial: Some(self.partial),
            dataset_digest: self.dataset.digest.clone(),
            optimizer_steps: self.optimizer.steps(),
            average_updates: self.average.as_ref().map_or(0, Average::updates),
            learning_rate: self.optimizer.learning_rate(),
            stopping: Some(self.stopping.state()),
            plateau: Some(Waiting {
                best: Some(plateau.best).filter(|best| best.is_finite()),
                reference: None,
                waited: plateau.waited,
            }),
            plateau_factor: plateau.factor,
            last: self.last,
            best: self.best.as_ref().map(|best| best.metrics),
            elapsed_seconds: self.clock.elapsed().as_secs_f64(),
            ..Default::default()
        };
        // The trained parameters are kept as the buffer that they are views of.
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
        let averages = self.average.iter().flat_map(Average::tensors);
        let averages = averages
            .enumerate()
            .map(|(index, tensor)| (format!("{AVERAGE}{index:03}"), tensor));
        let tensors = others.chain(flat).chain(averages);
        let snapshot = Snapshot::take(record, tensors, |name| {
            name.strip_prefix(STATE).is_none_or(is_trained)
        })?;
        self.writer.begin(snapshot)?;
        self.saved = Instant::now();
        Ok(())
    }

    /// Waits until the full checkpoint that was begun is on disk and told.
    pub(in super::super) fn finish_saving(&mut self) -> Result<(), Error> {
        Ok(self.writer.finish()?)
    }

    /// A copy of everything that training changes, with a head that predicts years.
    pub(super) fn export(&self) -> Result<BTreeMap<String, Tensor>, Error> {
        let trained = self
            .state
            .iter()
            .filter(|(name, _)| self.spec.trained.contains_name(name));
        let copies = trained.map(|(name, tensor)| {
            let copy = tensor.f_detach()?.f_add_scalar(0)?;
            Ok::<_, tch::TchError>((name.clone(), copy))
        });
        let mut exported = copies
            .collect::<Result<BTreeMap<_, _>, _>>()
            .map_err(model::Error::from)?;
        // The inverse of what a head in years becomes on the scale of the targets.
        let LabelScale { scale, offset } = self.objective.scale;
        let inverse = LabelScale {
            scale: 1.0 / scale,
            offset: -offset / scale,
        };
        change_scale(&mut exported, inverse)?;
        Ok(exported)
    }

    pub(super) fn write_checkpoint(
        &self,
        metrics: &v1::EpochMetrics,
        trained: &BTreeMap<String, Tensor>,
        calibration: Option<&Calibration>,
    ) -> Result<Vec<WorkerFile>, Error> {
        let directory = Path::new(&self.job.work_dir)
            .join(format!("epoch-{}-{}", self.job.attempt, metrics.epoch));
        let manifest = Manifest {
            format_version: checkpoint::FORMAT_VERSION,
            visage_version: env!("CARGO_PKG_VERSION").to_owned(),
            architecture: ARCHITECTURE.to_owned(),
            training: self.job.training.clone(),
            epoch: metrics.epoch,
            metrics: proto::to_json(metrics),
            input: self.loader.input.clone(),
            decoder_revision: DECODER_REVISION,
            // Whatever the scale of the targets was, it is folded into the head.
            label: YEARS,
            calibration: calibration.cloned(),
            dataset: DatasetRecord {
                path: self.spec.dataset.path.clone(),
                digest: self.dataset.digest.clone(),
                val_digest: self.dataset.val_digest.clone(),
                mean_training_age: Some(self.mean_age),
            },
            spec: proto::to_json(&self.spec.to_message()),
            test: None,
            sha256: BTreeMap::new(),
        };
        let shared = |(name, tensor): (&String, &Tensor)| (name.clone(), tensor.shallow_clone());
        let mut state: BTreeMap<String, Tensor> = self.state.iter().map(shared).collect();
        state.extend(trained.iter().map(shared));
        let written = checkpoint::write(&directory, &state, manifest)?;
        let files = written.into_iter().map(|file| WorkerFile {
            name: file.name.to_owned(),
            path: file.path.to_string_lossy().into_owned(),
            size_bytes: file.size,
            sha256: file.sha256,
        });
        Ok(files.collect())
    }
}

/// The network's tensors as an earlier process left them; the trained parameters, which lie in a buffer of their own, are still zero.
pub(super) fn restored_state(restored: &mut Restored) -> Result<BTreeMap<String, Tensor>, Error> {
    let mut state = restored.take(STATE);
    for (name, shape) in layout(1) {
        let shape: Vec<i64> = shape.iter().map(|side| *side as i64).collect();
        if let Entry::Vacant(place) = state.entry(name) {
            let zeros = Tensor::f_zeros(&shape, (Kind::Float, Device::Cpu));
            place.insert(zeros.map_err(model::Error::from)?);
        }
    }
    Ok(state)
}

/// Makes a head that predicts y predict (y - offset) / scale.
pub(super) fn change_scale(
    state: &mut BTreeMap<String, Tensor>,
    scale: LabelScale,
) -> Result<(), Error> {
    if scale == YEARS {
        return Ok(());
    }
    let changed = tch::no_grad(|| {
        let weight = state["fc.weight"].f_div_scalar(scale.scale)?;
        let bias = state["fc.bias"]
            .f_sub_scalar(scale.offset)?
            .f_div_scalar(scale.scale)?;
        Ok::<_, model::Error>([("fc.weight", weight), ("fc.bias", bias)])
    })?;
    state.extend(changed.map(|(name, tensor)| (name.to_owned(), tensor)));
    Ok(())
}
