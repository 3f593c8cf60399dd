//! TrainingService.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use prost::Message;
use sha2::{Digest, Sha256};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Request, Response, Status};

use crate::{
    artifacts::Artifacts,
    dataset::{self, Roots, dataset_report},
    imaging::Limits,
    model::init::{self, Init},
    names,
    proto::{
        v1::{self, TrainingState, training_service_server::TrainingService},
        validation::Violation,
    },
    store::{RequestId, Store},
    telemetry::traces::{self, Trace},
    training::{
        estimate,
        spec::{Changes, Spec},
        supervisor::Supervisor,
    },
};

use super::{
    dataset_ref, download,
    event_stream::{self, EventStream},
    next_page_token, page_size, page_token, status, uncompressed,
};

/// Calls that only try a start and are looked through at once: each may scan a dataset.
pub const MAX_VALIDATIONS: usize = 4;
/// Files of initial weights that are read at once; each may take twice [`MAX_FILE_BYTES`](crate::model::weights::MAX_FILE_BYTES) of memory. Others wait.
pub const MAX_WEIGHTS_CHECKS: usize = 2;

/// The service over its handles.
#[derive(Clone)]
pub struct TrainingApi {
    /// The log and the records.
    pub store: Store,
    /// The queue.
    pub supervisor: Supervisor,
    /// The checkpoints' files.
    pub artifacts: Artifacts,
    /// Where images may be read.
    pub data_roots: Roots,
    /// Where weights may be read.
    pub weights_roots: Roots,
    /// Limits on one image.
    pub limits: Limits,
    /// Memory of the machine in bytes, where trainings use the processor's.
    pub memory: Option<u64>,
    /// Of the server's settings, for specs that say nothing.
    pub max_restarts: u32,
    /// Longest silence of a stream, unless the client asks for another.
    pub heartbeat: Duration,
    /// Places for calls that only try a start, [`MAX_VALIDATIONS`] of them.
    pub validations: Arc<Semaphore>,
    /// Places for files of initial weights that are read at once, [`MAX_WEIGHTS_CHECKS`] of them.
    pub weights_checks: Arc<Semaphore>,
    /// Ends the streams.
    pub shutdown: CancellationToken,
    /// Owns the streams' tasks.
    pub tasks: TaskTracker,
}

#[tonic::async_trait]
impl TrainingService for TrainingApi {
    type StreamEpochMetricsStream = ReceiverStream<Result<v1::StreamEpochMetricsResponse, Status>>;
    type DownloadCheckpointStream = download::Boxed<v1::DownloadCheckpointResponse>;

    async fn start_training(
        &self,
        request: Request<v1::StartTrainingRequest>,
    ) -> Result<Response<v1::StartTrainingResponse>, Status> {
        let request = request.into_inner();
        let repeated = request_id(&request);
        if let Some(repeated) = &repeated
            && !request.validate_only
        {
            // Before the checks: the dataset of a training that was accepted may have moved since.
            let known = self.store.requested_training(repeated).await;
            if let Some(training) = known.map_err(status::from_store)? {
                return Ok(Response::new(v1::StartTrainingResponse {
                    training: Some(self.with_progress(training)),
                    estimate: None,
                }));
            }
        }
        let Checked { spec, init_source } = self.check(&request).await?;
        self.check_source(spec.clone()).await?;
        if request.validate_only {
            let mut response = self.validate(request, spec).await?;
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
            display_name: request.display_name,
            labels: request.labels,
            spec: request.spec,
            resolved_spec: Some(spec.to_message()),
            trace_parent: trace.as_ref().map(Trace::parent_header).unwrap_or_default(),
            trace_state: trace.as_ref().map(Trace::state_header).unwrap_or_default(),
            ..Default::default()
        };
        let training = self
            .supervisor
            .start(training, repeated)
            .await
            .map_err(status::from_supervisor)?;
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
        let training = self
            .store
            .training(training_id("name", &name)?)
            .await
            .map_err(status::from_store)?;
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
            return Err(status::invalid(
                "states",
                &format!("{state} is no TrainingState"),
            ));
        }
        let states: Vec<TrainingState> = request.states().collect();
        let limit = page_size(request.page_size, 50)?;
        let before = page_token(&request.page_token)?;
        let page = self
            .store
            .list_trainings(&states, before, limit)
            .await
            .map_err(status::from_store)?;
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
        let name = request.into_inner().name;
        let training = self
            .supervisor
            .stop(training_id("name", &name)?)
            .await
            .map_err(status::from_supervisor)?;
        Ok(Response::new(v1::StopTrainingResponse {
            training: Some(training),
        }))
    }

    async fn cancel_training(
        &self,
        request: Request<v1::CancelTrainingRequest>,
    ) -> Result<Response<v1::CancelTrainingResponse>, Status> {
        let request = request.into_inner();
        let id = training_id("name", &request.name)?;
        let training = self
            .supervisor
            .cancel(id, request.force)
            .await
            .map_err(status::from_supervisor)?;
        Ok(Response::new(v1::CancelTrainingResponse {
            training: Some(training),
        }))
    }

    async fn pause_training(
        &self,
        request: Request<v1::PauseTrainingRequest>,
    ) -> Result<Response<v1::PauseTrainingResponse>, Status> {
        let name = request.into_inner().name;
        let training = self
            .supervisor
            .pause(training_id("name", &name)?)
            .await
            .map_err(status::from_supervisor)?;
        Ok(Response::new(v1::PauseTrainingResponse {
            training: Some(training),
        }))
    }

    async fn resume_training(
        &self,
        request: Request<v1::ResumeTrainingRequest>,
    ) -> Result<Response<v1::ResumeTrainingResponse>, Status> {
        let name = request.into_inner().name;
        let training = self
            .supervisor
            .resume(training_id("name", &name)?)
            .await
            .map_err(status::from_supervisor)?;
        Ok(Response::new(v1::ResumeTrainingResponse {
            training: Some(training),
        }))
    }

    async fn update_training(
        &self,
        request: Request<v1::UpdateTrainingRequest>,
    ) -> Result<Response<v1::UpdateTrainingResponse>, Status> {
        let request = request.into_inner();
        let id = training_id("name", &request.name)?;
        let changes = Changes::resolve(&request).map_err(|found| status::violations(&found))?;
        let training = self
            .supervisor
            .change(id, changes)
            .await
            .map_err(status::from_supervisor)?;
        Ok(Response::new(v1::UpdateTrainingResponse {
            training: Some(self.with_progress(training)),
        }))
    }

    async fn delete_training(
        &self,
        request: Request<v1::DeleteTrainingRequest>,
    ) -> Result<Response<v1::DeleteTrainingResponse>, Status> {
        let name = request.into_inner().name;
        self.supervisor
            .delete(training_id("name", &name)?)
            .await
            .map_err(status::from_supervisor)?;
        Ok(Response::new(v1::DeleteTrainingResponse {}))
    }

    async fn stream_epoch_metrics(
        &self,
        request: Request<v1::StreamEpochMetricsRequest>,
    ) -> Result<Response<Self::StreamEpochMetricsStream>, Status> {
        let request = request.into_inner();
        let subject = event_stream::subject(
            &self.store,
            &request.name,
            request.after_sequence,
            &request.resume_token,
        )
        .await?;
        let stream = EventStream {
            store: self.store.clone(),
            subject,
            follow: request.follow.unwrap_or(true),
            heartbeat: self.heartbeat_interval(request.heartbeat_interval.as_ref())?,
            progress: request.progress.then(|| self.supervisor.follow_progress()),
            shutdown: self.shutdown.clone(),
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
        let limit = page_size(request.page_size, 100)?;
        let token = page_token(&request.page_token)?;
        let subject =
            event_stream::subject(&self.store, &request.name, request.after_sequence, "").await?;
        let page = match subject {
            event_stream::Subject::All { .. } => {
                self.store
                    .events_after_global(token.unwrap_or(0), limit)
                    .await
            }
            event_stream::Subject::Training { id, after } => {
                let after = match token {
                    Some(cursor) => self
                        .store
                        .sequence_at(&id, cursor)
                        .await
                        .map_err(status::from_store)?,
                    None => after,
                };
                self.store.events_after(&id, after, limit).await
            }
        };
        let page = page.map_err(status::from_store)?;
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
        let limit = page_size(request.page_size, 50)?;
        let before = page_token(&request.page_token)?;
        let page = self
            .store
            .checkpoints(id, before, limit)
            .await
            .map_err(status::from_store)?;
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
            names::checkpoint(&request.name).map_err(|error| status::bad_name("name", &error))?;
        let found = self.store.checkpoint(id, which).await;
        let checkpoint = found.map_err(status::from_store)?;
        let file = download::choose(&checkpoint.name, &checkpoint.files, &request.file)?;
        let response = |file, data| v1::DownloadCheckpointResponse { file, data };
        let stream = download::stream(&self.artifacts, file, response).await?;
        Ok(uncompressed(stream))
    }
}

/// A request without violations.
struct Checked {
    spec: Spec,
    /// The weights of a file; empty where the spec names none.
    init_source: String,
}

impl TrainingApi {
    /// Checks everything that needs no look at the images; all violations at once, those of a file of weights behind all others.
    async fn check(&self, request: &v1::StartTrainingRequest) -> Result<Checked, Status> {
        let mut asked = request.spec.clone().unwrap_or_default();
        let mut found = Vec::new();
        if let Some(dataset) = &mut asked.dataset {
            found.extend(dataset_ref::resolve_name(&self.store, dataset, "spec.dataset").await?);
        }
        let is_misnamed = !found.is_empty();
        let mut refuse = |field: &str, description: String| {
            found.push(Violation {
                field: field.to_owned(),
                description,
            });
        };
        if !request.request_id.is_empty() && uuid::Uuid::try_parse(&request.request_id).is_err() {
            refuse("request_id", format!("{:?} is no UUID", request.request_id));
        }
        if !request.training_id.is_empty() && !names::is_id(&request.training_id) {
            refuse("training_id", names::id_violation(&request.training_id));
        }
        if request.display_name.chars().count() > 256 {
            refuse(
                "display_name",
                "it is longer than 256 characters".to_owned(),
            );
        }
        let bad_label = |(key, value): (&String, &String)| {
            key.is_empty() || key.len() > 63 || value.len() > 255
        };
        if request.labels.len() > 64 || request.labels.iter().any(bad_label) {
            refuse(
                "labels",
                "at most 64 are allowed, keys of 1 to 63 and values of at most 255 bytes"
                    .to_owned(),
            );
        }
        let (dataset, init) = (
            asked.dataset.clone().unwrap_or_default().path,
            asked.init.clone().unwrap_or_default().path,
        );
        // Whatever else is wrong; that a path is missing is said by the spec's own checks.
        let mut resolve = |roots: &Roots, field: &str, path: &str| {
            let resolved = (!path.is_empty()).then(|| roots.resolve(path))?;
            match resolved {
                Ok(path) => Some(path.to_string_lossy().into_owned()),
                Err(error) => {
                    refuse(field, error.to_string());
                    None
                }
            }
        };
        let dataset = resolve(&self.data_roots, "spec.dataset.path", &dataset);
        let init = resolve(&self.weights_roots, "spec.init.path", &init);
        let with_paths = |mut spec: Spec| {
            spec.max_restarts.get_or_insert(self.max_restarts);
            if let Some(dataset) = &dataset {
                spec.dataset.path.clone_from(dataset);
            }
            if let (Init::Path { path, .. }, Some(init)) = (&mut spec.init, &init) {
                path.clone_from(init);
            }
            spec
        };
        let mut init_source = String::new();
        let mut spec = match Spec::resolve(request.spec.as_ref().map(|_| &asked)) {
            Ok(spec) => Some(with_paths(spec)),
            Err(mut violations) => {
                // What is wrong with the name is why there is no path.
                violations
                    .retain(|violation| !is_misnamed || violation.field != "spec.dataset.path");
                found.extend(violations);
                None
            }
        };
        if let Some(spec) = &mut spec
            && found.is_empty()
            && let Init::Path { path, key } = spec.init.clone()
        {
            let file = self.check_weights(path, key).await?;
            init_source = file.source;
            if let Some(description) = file.description {
                // The training starts where the age model was, unless the request says otherwise.
                if asked.head_bias() == v1::HeadBias::Unspecified {
                    asked.set_head_bias(v1::HeadBias::Keep);
                }
                asked.input_size.get_or_insert(description.input.size);
                match Spec::resolve(Some(&asked)) {
                    Ok(resolved) => *spec = with_paths(resolved),
                    Err(violations) => found.extend(violations),
                }
            }
        }
        if let Some(spec) = &spec
            && let Some(total) = self.memory
        {
            let needed = estimate::memory_bytes(spec, 0, 0);
            if needed > total {
                let description = format!(
                    "the training needs about {} MB of memory at this batch and spec.input_size {}, and the machine has {} MB; lower either",
                    needed >> 20,
                    spec.input_size,
                    total >> 20
                );
                found.push(Violation {
                    field: "spec.batch_size".to_owned(),
                    description,
                });
            }
        }
        match spec {
            Some(spec) if found.is_empty() => Ok(Checked { spec, init_source }),
            _ => Err(status::violations(&found)),
        }
    }

    /// Refuses a dataset that no scan could read, such as a manifest without the columns, before there is a training of it.
    #[expect(
        clippy::disallowed_methods,
        reason = "reading files is what the blocking pool is for, and only the header of a manifest is read"
    )]
    async fn check_source(&self, spec: Spec) -> Result<(), Status> {
        let (roots, limits) = (self.data_roots.clone(), self.limits);
        let check = tokio::task::spawn_blocking(move || {
            let options = spec.dataset.options(spec.seed, limits);
            dataset::check_source(Path::new(&spec.dataset.path), &roots, &options)
        });
        let checked = check.await.map_err(|error| {
            tracing::error!(%error, "a check of a dataset panicked");
            Status::internal("the check of the dataset failed")
        })?;
        checked.map_err(|error| status::from_dataset(&error))
    }

    /// Every check, the scan of the dataset included, without a change.
    async fn validate(
        &self,
        request: v1::StartTrainingRequest,
        spec: Spec,
    ) -> Result<v1::StartTrainingResponse, Status> {
        self.supervisor
            .check_start(&request.training_id)
            .await
            .map_err(status::from_supervisor)?;
        let slot = self.validations.try_acquire();
        let _slot = slot.map_err(|_| status::too_many_validations(MAX_VALIDATIONS))?;
        let dataset = self.scan(spec.clone()).await?;
        let report = dataset_report(&dataset);
        let estimate = self
            .estimate(&spec, dataset.train.len(), dataset.val.len())
            .await?;
        Ok(v1::StartTrainingResponse {
            training: Some(v1::Training {
                display_name: request.display_name,
                labels: request.labels,
                spec: request.spec,
                resolved_spec: Some(spec.to_message()),
                dataset: Some(report),
                ..Default::default()
            }),
            estimate: Some(estimate),
        })
    }

    /// Reads a file of initial weights.
    #[expect(
        clippy::disallowed_methods,
        reason = "reading files is what the blocking pool is for; calls are as rare as trainings"
    )]
    async fn check_weights(&self, path: String, key: String) -> Result<init::WeightsFile, Status> {
        let place = self.weights_checks.clone().acquire_owned().await;
        let place = place.map_err(|_| Status::unavailable("the server is stopping"))?;
        let check = tokio::task::spawn_blocking(move || {
            // Held until the file is read, also when the client has left.
            let _place = place;
            init::check(&path, &key)
        });
        let checked = check.await.map_err(|error| {
            tracing::error!(%error, "a check of weights panicked");
            Status::internal("failed to check the initial weights")
        })?;
        checked.map_err(|error| status::from_weights(&error))
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "reading files is what the blocking pool is for; calls are as rare as trainings"
    )]
    async fn scan(&self, spec: Spec) -> Result<dataset::Dataset, Status> {
        let (roots, limits) = (self.data_roots.clone(), self.limits);
        // Cancelled when the call is dropped, so that a client that leaves does not leave a scan behind.
        let left = CancellationToken::new();
        let guard = left.clone().drop_guard();
        let scan = tokio::task::spawn_blocking(move || {
            let options = dataset::Options {
                background: true,
                ..spec.dataset.options(spec.seed, limits)
            };
            let path = PathBuf::from(&spec.dataset.path);
            dataset::load(&path, &roots, &options, &mut |_, _, _| {}, &|| {
                left.is_cancelled()
            })
            .map_err(|error| status::from_dataset(&error))
        });
        let scanned = scan.await.map_err(|error| {
            tracing::error!(%error, "a scan panicked");
            Status::internal("the scan of the dataset failed")
        })?;
        drop(guard);
        scanned
    }

    async fn estimate(
        &self,
        spec: &Spec,
        train: usize,
        validation: usize,
    ) -> Result<v1::Estimate, Status> {
        let pace = self.latest_pace(spec).await?;
        let seconds =
            pace.map(|pace| f64::from(spec.max_epochs) * (train as f64 + validation as f64) / pace);
        let duration = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        Ok(v1::Estimate {
            memory_bytes: estimate::memory_bytes(spec, train, validation),
            disk_bytes: estimate::disk_bytes(spec),
            steps_per_epoch: train.div_ceil(spec.batch_size) as u64,
            duration: duration.and_then(|duration| prost_types::Duration::try_from(duration).ok()),
        })
    }

    /// Images per second of the latest complete epoch at the same input size.
    async fn latest_pace(&self, spec: &Spec) -> Result<Option<f64>, Status> {
        let page = self
            .store
            .list_trainings(&[], None, 20)
            .await
            .map_err(status::from_store)?;
        let same = page.items.iter().find_map(|training| {
            let resolved = training.resolved_spec.as_ref()?;
            let same = resolved.input_size == Some(spec.input_size)
                && resolved.trainable == spec.trained.names();
            training
                .last
                .as_ref()
                .filter(|_| same)
                .map(|last| last.images_per_second)
        });
        Ok(same.filter(|pace| *pace > 0.0))
    }

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
            status::invalid(
                "heartbeat_interval",
                &format!("{given} is out of range; 100 ms to 10 minutes is allowed"),
            )
        })
    }
}

fn training_id<'a>(field: &str, name: &'a str) -> Result<&'a str, Status> {
    names::training_id(name).map_err(|error| status::bad_name(field, &error))
}

/// The id of the request in its usual form, with a digest of what it asks; `None` when there is none or it is no UUID, which the checks refuse.
fn request_id(request: &v1::StartTrainingRequest) -> Option<RequestId> {
    let id = uuid::Uuid::try_parse(&request.request_id).ok()?;
    Some(RequestId {
        id: id.hyphenated().to_string(),
        fingerprint: fingerprint(request),
    })
}

/// A digest of what the client asks, without the id of the request.
fn fingerprint(request: &v1::StartTrainingRequest) -> String {
    let request = v1::StartTrainingRequest {
        request_id: String::new(),
        ..request.clone()
    };
    format!("{:x}", Sha256::digest(request.encode_to_vec()))
}

/// An id that people can tell apart and that sorts by time, such as `t20261124-093015-4f2a81c3`.
fn new_id() -> String {
    let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let digits: String = now.chars().filter(char::is_ascii_digit).collect();
    let (date, time) = digits.split_at(8.min(digits.len()));
    let random = uuid::Uuid::new_v4().simple().to_string();
    format!("t{date}-{time}-{}", &random[..8])
}
