use super::{error::Error, resolve::Registry};
use crate::{
    model::{starter, training_images::TRAINING_IMAGES_FILE},
    names::id_of,
    proto::{self, v1},
};

impl Registry {
    /// The record of the version that a checkpoint becomes.
    pub(super) async fn describe(
        &self,
        training: &v1::Training,
        checkpoint: &v1::Checkpoint,
    ) -> Result<v1::ModelVersion, Error> {
        let metrics = match &training.best {
            Some(best) if best.epoch == checkpoint.epoch => Some(*best),
            _ => {
                let id = id_of(&training.name);
                self.inner.store.epoch_metrics(id, checkpoint.epoch).await?
            }
        };
        let dataset = training.dataset.clone().unwrap_or_default();
        let is_best = training
            .best
            .as_ref()
            .is_some_and(|best| best.epoch == checkpoint.epoch);
        Ok(v1::ModelVersion {
            checkpoint: checkpoint.name.clone(),
            spec: training.resolved_spec.clone(),
            metrics,
            // A training tests only its best checkpoint.
            test: training.test.clone().filter(|_| is_best),
            dataset_digest: dataset.digest,
            val_digest: dataset.val_digest,
            input_size: training
                .resolved_spec
                .as_ref()
                .and_then(|spec| spec.input_size)
                .unwrap_or_default(),
            training_images_recorded: has_record(&checkpoint.files),
            files: checkpoint.files.clone(),
            origin: v1::VersionOrigin::Training.into(),
            ..Default::default()
        })
    }
}

/// The record of the starter, from its manifest.
pub(super) fn describe_starter(files: Vec<v1::CheckpointFile>) -> v1::ModelVersion {
    const READ: &str = "a test reads the manifest that is built in";
    let manifest = starter::manifest();
    let test = manifest.test.as_ref();
    v1::ModelVersion {
        spec: Some(proto::from_json(&manifest.spec).expect(READ)),
        metrics: Some(proto::from_json(&manifest.metrics).expect(READ)),
        test: test.map(|test| proto::from_json(test).expect(READ)),
        dataset_digest: manifest.dataset.digest.clone(),
        val_digest: manifest.dataset.val_digest.clone(),
        input_size: manifest.input.size,
        training_images_recorded: has_record(&files),
        files,
        origin: v1::VersionOrigin::Starter.into(),
        ..Default::default()
    }
}

/// Returns whether the images that a version was trained on are recorded.
fn has_record(files: &[v1::CheckpointFile]) -> bool {
    files.iter().any(|file| file.name == TRAINING_IMAGES_FILE)
}
