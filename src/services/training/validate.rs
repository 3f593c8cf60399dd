use std::time::Duration;

use tonic::Status;

use super::api::TrainingApi;
use crate::{
    dataset::dataset_report,
    proto::v1,
    services::dataset_input,
    store::TrainingFilter,
    training::{estimate, spec::Spec},
};

impl TrainingApi {
    /// Performs all checks of a start including the scan of the dataset, without a change.
    pub(super) async fn validate(
        &self,
        request: v1::StartTrainingRequest,
        owner: String,
        spec: Spec,
    ) -> Result<v1::StartTrainingResponse, Status> {
        let id = &request.training_id;
        self.supervisor.check_start(id, &owner).await?;
        let _permit = self.validations.acquire()?;
        let options = spec.dataset.options(spec.seed, self.limits);
        let no_progress = |_, _, _| {};
        let (path, roots) = (&spec.dataset.path, &self.data_roots);
        let dataset =
            dataset_input::scan(path, roots, options, "spec.dataset.", no_progress).await?;
        let (train, validation) = (dataset.train.len(), dataset.val.len());
        let pace = self.latest_pace(&spec).await?;
        let duration = pace.and_then(|pace| {
            let images = f64::from(spec.max_epochs) * (train as f64 + validation as f64);
            Duration::try_from_secs_f64(images / pace).ok()
        });
        Ok(v1::StartTrainingResponse {
            training: Some(v1::Training {
                owner,
                display_name: request.display_name,
                labels: request.labels,
                spec: request.spec,
                resolved_spec: Some(spec.to_message()),
                dataset: Some(dataset_report(&dataset)),
                ..Default::default()
            }),
            estimate: Some(v1::Estimate {
                memory_bytes: estimate::memory_bytes(&spec, train, validation),
                disk_bytes: estimate::disk_bytes(&spec),
                steps_per_epoch: train.div_ceil(spec.batch_size) as u64,
                duration: duration
                    .and_then(|duration| prost_types::Duration::try_from(duration).ok()),
            }),
        })
    }

    /// Images per second of the latest completed epoch of a similar training.
    async fn latest_pace(&self, spec: &Spec) -> Result<Option<f64>, Status> {
        let page = self
            .store
            .list_trainings(&TrainingFilter::default(), None, 20)
            .await?;
        let pace = page.items.iter().find_map(|training| {
            let resolved = training.resolved_spec.as_ref()?;
            let is_similar = resolved.input_size == Some(spec.input_size)
                && resolved.trainable == spec.trained.names();
            let last = training.last.as_ref().filter(|_| is_similar)?;
            Some(last.images_per_second)
        });
        Ok(pace.filter(|pace| *pace > 0.0))
    }
}
