//! Export of a checkpoint that can be served.

use std::{collections::BTreeMap, path::Path};

use tch::Tensor;

use crate::{
    imaging::DECODER_REVISION,
    model::{
        self,
        calibration::Calibration,
        checkpoint::{self, DatasetRecord, LabelScale, Manifest},
        description::ARCHITECTURE,
    },
    proto::{self, v1, worker_v1::WorkerFile},
    training::loss::YEARS,
};

use super::{error::Error, session::Session};

impl Session<'_> {
    /// Copies the tensors of trained layers, with a head that predicts years.
    pub(super) fn export(&self) -> Result<BTreeMap<String, Tensor>, Error> {
        let trained = self
            .state
            .iter()
            .filter(|(name, _)| self.spec.trained.contains_name(name));
        let copies = trained.map(|(name, tensor)| {
            let copy = tensor.f_detach()?.f_add_scalar(0)?;
            Ok::<_, tch::TchError>((name.clone(), copy))
        });
        let mut exported = copies.collect::<Result<BTreeMap<_, _>, _>>()?;
        // The inverse of the change at the start of the training.
        let LabelScale { scale, offset } = self.loss.scale;
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
            // The scale of the targets is folded into the head.
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
        let written = checkpoint::write(&directory, &state, manifest, self.trained_on.images())?;
        let files = written.into_iter().map(|file| WorkerFile {
            name: file.name.to_owned(),
            path: file.path.to_string_lossy().into_owned(),
            size_bytes: file.size,
            sha256: file.sha256,
        });
        Ok(files.collect())
    }
}

/// Changes a head that predicts y to predict (y - offset) / scale.
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
