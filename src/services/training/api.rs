use std::{sync::Arc, time::Duration};

use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Request, Response, Status};

use super::start::{Checked, labels_violation, new_id, permitted, request_id};
use crate::{
    artifacts::Artifacts,
    dataset::Roots,
    imaging::Limits,
    names,
    proto::v1::{self, TrainingState, training_service_server::TrainingService},
    services::{
        authorize,
        caller::Caller,
        compression::uncompressed,
        download,
        event_log::EventLog,
        event_stream::{self, EventStream, Subject},
        limit::CallLimit,
        page::{PageRequest, next_page_token},
        status,
        stream_limit::StreamLimit,
    },
    store::{Store, TrainingFilter},
    telemetry::traces::{self, Trace},
    training::{spec::Changes, supervisor::Supervisor},
};

#[derive(Clone)]
pub(crate) struct TrainingApi {
    pub(crate) store: Store,
    pub(crate) event_log: EventLog,
    pub(crate) streams: StreamLimit,
    pub(crate) supervisor: Supervisor,
    pub(crate) artifacts: Artifacts,
    pub(crate) data_roots: Roots,
    pub(crate) weights_roots: Roots,
    /// Limits on one image.
    pub(crate) limits: Limits,
    /// Memory of the machine in bytes; `None` if trainings use that of another device.
    pub(crate) memory: Option<u64>,
    /// For specs that do not set it.
    pub(crate) max_restarts: u32,
    /// For streams that do not set it.
    pub(crate) heartbeat: Duration,
    pub(crate) validations: CallLimit,
    pub(crate) hub_checks: CallLimit,
    /// Permits to read initial weights.
    pub(crate) weights_checks: Arc<Semaphore>,
    pub(crate) shutdown: CancellationToken,
    /// Owns the tasks of streams.
    pub(crate) tasks: TaskTracker,
}

#[tonic::async_trait]
impl TrainingService for TrainingApi {
    type StreamEpochMetricsStream = ReceiverStream<Result<v1::StreamEpochMetricsResponse, Status>>;
    type DownloadCheckpointStream = download::Boxed<v1::DownloadCheckpointResponse>;

    async fn start_training(
        &self,
        request: Request<v1::StartTrainingRequest>,
    ) -> Result<Response<v1::StartTrainingResponse>, Status> {
        let owner = authorize::actor(request.extensions()).owner;
        let request = permitted(request)?;
        let repeated = request_id(&request, &owner);
        if let Some(repeated) = &repeated
            && !request.validate_only
        {
            // Before the checks, because the dataset of an accepted training may have moved since.
            if let Some(training) = self.store.requested_training(repeated).await? {
                return Ok(Response::new(v1::StartTrainingResponse {
                    training: Some(self.with_progress(training)),
                    estimate: None,
                }));
            }
        }
        let Checked { spec, init_source } = self.check(&request).await?;
        self.check_source(&spec).await?;
        if request.validate_only {
            let mut response = self.validate(request, owner, spec).await?;
            if let Some(training) = &mut response.training {
                training.init_source = init_source;
            }
            return Ok(Response::new(response));
        }
        let id = match request.training_id.as_str() {
            "" => new_id(),
            given => given.to_owned(),
        };
        let trace = traces::current();
        let training = v1::Training {
            name: format!("trainings/{id}"),
            owner,
            display_name: request.display_name,
            labels: request.labels,
            spec: request.spec,
            resolved_spec: Some(spec.to_message()),
            trace_parent: trace.as_ref().map(Trace::parent_header).unwrap_or_default(),
            trace_state: trace.as_ref().map(Trace::state_header).unwrap_or_default(),
            ..Default::default()
        };
        let training = self.supervisor.start(training, repeated).await?;
        Ok(Response::new(v1::StartTrainingResponse {
            training: Some(training),
            estimate: None,
        }))
    }

    async fn get_training(
        &self,
        request: Request<v1::GetTrainingRequest>,
    ) -> Result<Response<v1::GetTrainingResponse>, Status> {
        let name = request.into_inner().name;
        let training = self.store.training(training_id("name", &name)?).await?;
        Ok(Response::new(v1::GetTrainingResponse {
            training: Some(self.with_progress(training)),
        }))
    }

    async fn list_trainings(
        &self,
        request: Request<v1::ListTrainingsRequest>,
    ) -> Result<Response<v1::ListTrainingsResponse>, Status> {
        let request = request.into_inner();
        let unknown = |state: &&i32| TrainingState::try_from(**state).is_err();
        if let Some(state) = request.states.iter().find(unknown) {
            let description = format!("must be values of TrainingState, got {state}");
            return Err(status::invalid("states", description));
        }
        if let Some(violation) = labels_violation(&request.labels) {
            return Err(status::invalid("labels", violation));
        }
        let filter = TrainingFilter {
            states: request.states().collect(),
            labels: request.labels,
        };
        let page = PageRequest::read(request.page_size, 50, &request.page_token)?;
        let page = self
            .store
            .list_trainings(&filter, page.cursor, page.limit)
            .await?;
        Ok(Response::new(v1::ListTrainingsResponse {
            trainings: page
                .items
                .into_iter()
                .map(|training| self.with_progress(training))
                .collect(),
            next_page_token: next_page_token(page.next),
        }))
    }

    async fn stop_training(
        &self,
        request: Request<v1::StopTrainingRequest>,
    ) -> Result<Response<v1::StopTrainingResponse>, Status> {
        let by = authorize::actor(request.extensions());
        let name = request.into_inner().name;
        let id = training_id("name", &name)?;
        let training = self.supervisor.stop(id, by).await?;
        Ok(Response::new(v1::StopTrainingResponse {
            training: Some(training),
        }))
    }

    async fn cancel_training(
        &self,
        request: Request<v1::CancelTrainingRequest>,
    ) -> Result<Response<v1::CancelTrainingResponse>, Status> {
        let by = authorize::actor(request.extensions());
        let request = request.into_inner();
        let id = training_id("name", &request.name)?;
        let training = self.supervisor.cancel(id, by, request.force).await?;
        Ok(Response::new(v1::CancelTrainingResponse {
            training: Some(training),
        }))
    }

    async fn pause_training(
        &self,
        request: Request<v1::PauseTrainingRequest>,
    ) -> Result<Response<v1::PauseTrainingResponse>, Status> {
        let by = authorize::actor(request.extensions());
        let name = request.into_inner().name;
        let id = training_id("name", &name)?;
        let training = self.supervisor.pause(id, by).await?;
        Ok(Response::new(v1::PauseTrainingResponse {
            training: Some(training),
        }))
    }

    async fn resume_training(
        &self,
        request: Request<v1::ResumeTrainingRequest>,
    ) -> Result<Response<v1::ResumeTrainingResponse>, Status> {
        let by = authorize::actor(request.extensions());
        let name = request.into_inner().name;
        let id = training_id("name", &name)?;
        let training = self.supervisor.resume(id, by).await?;
        Ok(Response::new(v1::ResumeTrainingResponse {
            training: Some(training),
        }))
    }

    async fn update_training(
        &self,
        request: Request<v1::UpdateTrainingRequest>,
    ) -> Result<Response<v1::UpdateTrainingResponse>, Status> {
        let by = authorize::actor(request.extensions());
        let request = request.into_inner();
        let id = training_id("name", &request.name)?;
        let changes = Changes::resolve(&request).map_err(|found| status::violations(&found))?;
        let training = self.supervisor.change(id, by, changes).await?;
        Ok(Response::new(v1::UpdateTrainingResponse {
            training: Some(self.with_progress(training)),
        }))
    }

    async fn delete_training(
        &self,
        request: Request<v1::DeleteTrainingRequest>,
    ) -> Result<Response<v1::DeleteTrainingResponse>, Status> {
        let name = request.into_inner().name;
        self.supervisor.delete(training_id("name", &name)?).await?;
        Ok(Response::new(v1::DeleteTrainingResponse {}))
    }

    async fn stream_epoch_metrics(
        &self,
        request: Request<v1::StreamEpochMetricsRequest>,
    ) -> Result<Response<Self::StreamEpochMetricsStream>, Status> {
        let client = Caller::of(&request)?.client;
        let request = request.into_inner();
        let counted = self.streams.open(client)?;
        let subject = event_stream::subject(
            &self.store,
            &request.name,
            request.after_sequence,
            &request.resume_token,
        )
        .await?;
        let stream = EventStream {
            log: self.event_log.clone(),
            subject,
            follow: request.follow.unwrap_or(true),
            heartbeat: self.heartbeat_interval(request.heartbeat_interval.as_ref())?,
            progress: request.progress.then(|| self.supervisor.follow_progress()),
            shutdown: self.shutdown.clone(),
            _counted: counted,
        };
        stream.check().await?;
        let (sender, receiver) = mpsc::channel(16);
        self.tasks.spawn(stream.run(sender));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn list_epoch_metrics(
        &self,
        request: Request<v1::ListEpochMetricsRequest>,
    ) -> Result<Response<v1::ListEpochMetricsResponse>, Status> {
        let request = request.into_inner();
        let page = PageRequest::read(request.page_size, 100, &request.page_token)?;
        let subject =
            event_stream::subject(&self.store, &request.name, request.after_sequence, "").await?;
        let page = match subject {
            Subject::All { .. } => {
                let after = page.cursor.unwrap_or(0);
                self.store.events_after_global(after, page.limit).await?
            }
            Subject::Training { id, after, .. } => {
                let after = match page.cursor {
                    Some(cursor) => self.store.sequence_at(&id, cursor).await?,
                    None => after,
                };
                self.store.events_after(&id, after, page.limit).await?
            }
        };
        Ok(Response::new(v1::ListEpochMetricsResponse {
            events: page.items,
            next_page_token: next_page_token(page.next),
        }))
    }

    async fn list_checkpoints(
        &self,
        request: Request<v1::ListCheckpointsRequest>,
    ) -> Result<Response<v1::ListCheckpointsResponse>, Status> {
        let request = request.into_inner();
        let id = training_id("parent", &request.parent)?;
        let page = PageRequest::read(request.page_size, 50, &request.page_token)?;
        let page = self.store.checkpoints(id, page.cursor, page.limit).await?;
        Ok(Response::new(v1::ListCheckpointsResponse {
            checkpoints: page.items,
            next_page_token: next_page_token(page.next),
        }))
    }

    async fn download_checkpoint(
        &self,
        request: Request<v1::DownloadCheckpointRequest>,
    ) -> Result<Response<Self::DownloadCheckpointStream>, Status> {
        let request = request.into_inner();
        let (id, which) =
            names::checkpoint(&request.name).map_err(|error| status::invalid("name", error))?;
        let checkpoint = self.store.checkpoint(id, which).await?;
        let file = download::find_file(&checkpoint.name, &checkpoint.files, &request.file)?;
        let response = |file, data| v1::DownloadCheckpointResponse { file, data };
        let stream = download::stream(&self.artifacts, file, response).await?;
        Ok(uncompressed(stream))
    }
}

impl TrainingApi {
    fn with_progress(&self, mut training: v1::Training) -> v1::Training {
        training.progress = self.supervisor.progress(names::id_of(&training.name));
        training
    }

    fn heartbeat_interval(
        &self,
        given: Option<&prost_types::Duration>,
    ) -> Result<Duration, Status> {
        let Some(given) = given else {
            return Ok(self.heartbeat);
        };
        let allowed = Duration::from_millis(100)..=Duration::from_secs(600);
        let interval = Duration::try_from(*given)
            .ok()
            .filter(|interval| allowed.contains(interval));
        interval.ok_or_else(|| {
            let description = format!("must be from 100 ms to 10 minutes, got {given}");
            status::invalid("heartbeat_interval", description)
        })
    }
}

fn training_id<'a>(field: &str, name: &'a str) -> Result<&'a str, Status> {
    names::training_id(name).map_err(|error| status::invalid(field, error))
}
