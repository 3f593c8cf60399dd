//! A server of the API whose answers the tests choose.

use std::{
    collections::VecDeque,
    net::TcpListener,
    pin::Pin,
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
};

use tokio::{runtime::Builder, sync::oneshot};
use tokio_stream::{Stream, StreamExt as _, wrappers::TcpListenerStream};
use tonic::{Request, Response, Status, transport::Server};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::proto::v1::{
    model_service_server::ModelServiceServer,
    prediction_service_server::{PredictionService, PredictionServiceServer},
    system_service_server::{SystemService, SystemServiceServer},
    training_service_server::{TrainingService, TrainingServiceServer},
    *,
};

use super::fake_models::Models;

/// How one opening of the event stream ends.
#[derive(Clone, Debug)]
pub(super) enum Ending {
    /// With this status after this many events.
    Fails(usize, Status),
    /// With OK after this many events, although the training goes on.
    Closes(usize),
    /// Not at all: nothing comes after this many events.
    Hangs(usize),
    /// After all events, once more from the first one.
    Repeats,
}

/// What the server says and what it was asked.
#[derive(Default)]
pub(super) struct State {
    pub(super) events: Vec<TrainingEvent>,
    pub(super) training: Training,
    /// One for each opening of the stream; then it behaves.
    pub(super) endings: Mutex<VecDeque<Ending>>,
    /// One for each StartTraining; then it succeeds.
    pub(super) refusals: Mutex<VecDeque<Status>>,
    pub(super) limits: Limits,
    pub(super) features: Vec<String>,
    /// Whether a bad image is named by its index.
    pub(super) names_bad_images: bool,
    pub(super) opened: Mutex<Vec<StreamEpochMetricsRequest>>,
    pub(super) started: Mutex<Vec<StartTrainingRequest>>,
    pub(super) predicted: Mutex<Vec<PredictRequest>>,
    pub(super) evaluated: Mutex<Vec<EvaluateModelVersionRequest>>,
    pub(super) aliased: Mutex<Vec<SetAliasRequest>>,
    pub(super) log_level: Mutex<String>,
    pub(super) file: Vec<u8>,
    pub(super) sha256: String,
}

/// A running server; dropped, it is gone with all its connections, as if killed.
pub(super) struct Fake {
    pub(super) listener: TcpListener,
    pub(super) state: Arc<State>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Fake {
    pub(super) fn start(state: State) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").unwrap(), Arc::new(state))
    }

    /// Connections are tasks of the runtime, so the server has one of its own that takes them along.
    pub(super) fn on(listener: TcpListener, state: Arc<State>) -> Self {
        listener.set_nonblocking(true).unwrap();
        let kept = listener.try_clone().unwrap();
        let service = Service(Arc::clone(&state));
        let (stop, stopped) = oneshot::channel();
        let thread = thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let server = Server::builder()
                    .add_service(TrainingServiceServer::new(service.clone()))
                    .add_service(PredictionServiceServer::new(service.clone()))
                    .add_service(ModelServiceServer::new(Models(Arc::clone(&service.0))))
                    .add_service(SystemServiceServer::new(service))
                    .serve_with_incoming(TcpListenerStream::new(listener));
                tokio::select! {
                    result = server => result.unwrap(),
                    _ = stopped => {}
                }
            });
        });
        Self {
            listener: kept,
            state,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.listener.local_addr().unwrap())
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

#[derive(Clone)]
struct Service(Arc<State>);

type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl TrainingService for Service {
    type StreamEpochMetricsStream = Streamed<StreamEpochMetricsResponse>;
    type DownloadCheckpointStream = Streamed<DownloadCheckpointResponse>;

    async fn start_training(
        &self,
        request: Request<StartTrainingRequest>,
    ) -> Result<Response<StartTrainingResponse>, Status> {
        self.0.started.lock().unwrap().push(request.into_inner());
        if let Some(status) = self.0.refusals.lock().unwrap().pop_front() {
            return Err(status);
        }
        Ok(Response::new(StartTrainingResponse {
            training: Some(self.0.training.clone()),
            estimate: Some(Estimate {
                memory_bytes: 3 << 29,
                steps_per_epoch: 25,
                ..Estimate::default()
            }),
        }))
    }

    async fn get_training(
        &self,
        request: Request<GetTrainingRequest>,
    ) -> Result<Response<GetTrainingResponse>, Status> {
        if request.get_ref().name != self.0.training.name {
            return Err(Status::not_found(format!(
                "there is no {}",
                request.get_ref().name
            )));
        }
        Ok(Response::new(GetTrainingResponse {
            training: Some(self.0.training.clone()),
        }))
    }

    /// Two trainings a page, five in all.
    async fn list_trainings(
        &self,
        request: Request<ListTrainingsRequest>,
    ) -> Result<Response<ListTrainingsResponse>, Status> {
        let start: usize = request.get_ref().page_token.parse().unwrap_or(0);
        let end = (start + 2).min(5);
        let trainings = (start..end)
            .map(|number| Training {
                name: format!("trainings/t{number}"),
                state: TrainingState::Running.into(),
                ..Training::default()
            })
            .collect();
        Ok(Response::new(ListTrainingsResponse {
            trainings,
            next_page_token: if end < 5 {
                end.to_string()
            } else {
                String::new()
            },
        }))
    }

    async fn stop_training(
        &self,
        _: Request<StopTrainingRequest>,
    ) -> Result<Response<StopTrainingResponse>, Status> {
        Err(Status::failed_precondition("trainings/t has already ended"))
    }

    async fn pause_training(
        &self,
        _: Request<PauseTrainingRequest>,
    ) -> Result<Response<PauseTrainingResponse>, Status> {
        Ok(Response::new(PauseTrainingResponse {
            training: Some(self.0.training.clone()),
        }))
    }

    async fn resume_training(
        &self,
        _: Request<ResumeTrainingRequest>,
    ) -> Result<Response<ResumeTrainingResponse>, Status> {
        Ok(Response::new(ResumeTrainingResponse {
            training: Some(self.0.training.clone()),
        }))
    }

    async fn update_training(
        &self,
        request: Request<UpdateTrainingRequest>,
    ) -> Result<Response<UpdateTrainingResponse>, Status> {
        let mut training = self.0.training.clone();
        training.resolved_spec.get_or_insert_default().max_epochs = request.into_inner().max_epochs;
        Ok(Response::new(UpdateTrainingResponse {
            training: Some(training),
        }))
    }

    async fn cancel_training(
        &self,
        _: Request<CancelTrainingRequest>,
    ) -> Result<Response<CancelTrainingResponse>, Status> {
        Ok(Response::new(CancelTrainingResponse {
            training: Some(self.0.training.clone()),
        }))
    }

    async fn delete_training(
        &self,
        _: Request<DeleteTrainingRequest>,
    ) -> Result<Response<DeleteTrainingResponse>, Status> {
        Ok(Response::new(DeleteTrainingResponse {}))
    }

    async fn stream_epoch_metrics(
        &self,
        request: Request<StreamEpochMetricsRequest>,
    ) -> Result<Response<Self::StreamEpochMetricsStream>, Status> {
        let request = request.into_inner();
        self.0.opened.lock().unwrap().push(request.clone());
        let ending = self.0.endings.lock().unwrap().pop_front();
        let after = match request.name.as_str() {
            "trainings/-" => request
                .resume_token
                .strip_prefix("token-")
                .map_or(0, |text| text.parse().unwrap()),
            _ => request.after_sequence,
        };
        let rest = self
            .0
            .events
            .iter()
            .filter(move |event| event.sequence > after);
        let mut messages: Vec<Result<StreamEpochMetricsResponse, Status>> = rest
            .cloned()
            .map(|event| Ok(StreamEpochMetricsResponse { event: Some(event) }))
            .collect();
        let mut hangs = false;
        match ending {
            None => {}
            Some(Ending::Fails(count, status)) => {
                messages.truncate(count);
                messages.push(Err(status));
            }
            Some(Ending::Closes(count)) => messages.truncate(count),
            Some(Ending::Hangs(count)) => {
                messages.truncate(count);
                hangs = true;
            }
            Some(Ending::Repeats) => {
                let last = messages.pop();
                let again = messages.clone();
                messages.extend(again);
                messages.extend(last);
            }
        }
        let stream = tokio_stream::iter(messages);
        Ok(Response::new(match hangs {
            true => Box::pin(stream.chain(tokio_stream::pending())),
            false => Box::pin(stream),
        }))
    }

    async fn list_epoch_metrics(
        &self,
        _: Request<ListEpochMetricsRequest>,
    ) -> Result<Response<ListEpochMetricsResponse>, Status> {
        Ok(Response::new(ListEpochMetricsResponse::default()))
    }

    async fn list_checkpoints(
        &self,
        _: Request<ListCheckpointsRequest>,
    ) -> Result<Response<ListCheckpointsResponse>, Status> {
        Ok(Response::new(ListCheckpointsResponse {
            checkpoints: vec![Checkpoint {
                name: "trainings/t/checkpoints/7".to_owned(),
                epoch: 7,
                best: true,
                val_loss: 84.25,
                val_mae: 7.125,
                files: vec![CheckpointFile {
                    size_bytes: 44 << 20,
                    ..CheckpointFile::default()
                }],
                ..Checkpoint::default()
            }],
            next_page_token: String::new(),
        }))
    }

    async fn download_checkpoint(
        &self,
        request: Request<DownloadCheckpointRequest>,
    ) -> Result<Response<Self::DownloadCheckpointStream>, Status> {
        let file = CheckpointFile {
            name: request.into_inner().file,
            size_bytes: self.0.file.len() as u64,
            sha256: self.0.sha256.clone(),
        };
        let mut messages = vec![Ok(DownloadCheckpointResponse {
            file: Some(file),
            ..DownloadCheckpointResponse::default()
        })];
        messages.extend(self.0.file.chunks(2).map(|chunk| {
            Ok(DownloadCheckpointResponse {
                data: chunk.to_vec().into(),
                ..DownloadCheckpointResponse::default()
            })
        }));
        Ok(Response::new(Box::pin(tokio_stream::iter(messages))))
    }
}

/// An image that begins with `bad` cannot be read; of any other the age is its first byte.
#[tonic::async_trait]
impl PredictionService for Service {
    type PredictBatchStream = Streamed<PredictBatchResponse>;

    async fn predict_batch(
        &self,
        _request: Request<tonic::Streaming<PredictBatchRequest>>,
    ) -> Result<Response<Self::PredictBatchStream>, Status> {
        Err(Status::unimplemented("no command calls it"))
    }

    async fn predict(
        &self,
        request: Request<PredictRequest>,
    ) -> Result<Response<PredictResponse>, Status> {
        let request = request.into_inner();
        self.0.predicted.lock().unwrap().push(request.clone());
        if request.model.ends_with("/99") {
            return Err(Status::not_found("there is no models/age/versions/99"));
        }
        let bad = request
            .images
            .iter()
            .position(|image| image.starts_with(b"bad"));
        if let Some(index) = bad {
            if !self.0.names_bad_images {
                return Err(Status::invalid_argument("an image cannot be read"));
            }
            let details = ErrorDetails::with_bad_request_violation(
                format!("images[{index}]"),
                "is not an image",
            );
            return Err(Status::with_error_details(
                tonic::Code::InvalidArgument,
                "the request is not valid",
                details,
            ));
        }
        let predictions = request
            .images
            .iter()
            .map(|image| Prediction {
                age: f64::from(image[0]),
                interval: Some(Interval {
                    lower: 21.25,
                    upper: 40.5,
                    confidence: request.interval_level.unwrap_or(0.9),
                }),
                annotated_png: match request.annotate {
                    true => vec![b'P', image[0]].into(),
                    false => Vec::new().into(),
                },
                width: 640,
                height: 480,
                explanation_png: match request.explain && !request.detect_faces {
                    true => vec![b'E', image[0]].into(),
                    false => Vec::new().into(),
                },
                explanation: (request.explain && !request.detect_faces).then(explanation),
                faces: match request.detect_faces {
                    true => faces(image, request.explain),
                    false => Vec::new(),
                },
                ..Prediction::default()
            })
            .collect();
        Ok(Response::new(PredictResponse {
            predictions,
            model_version: "models/age/versions/3".to_owned(),
            durations: Some(PredictDurations {
                decode: Some(prost_types::Duration {
                    seconds: 0,
                    nanos: 2_000_000,
                }),
                ..PredictDurations::default()
            }),
        }))
    }
}

fn explanation() -> Explanation {
    Explanation {
        rows: 1,
        columns: 2,
        years: vec![1.5, -0.5],
        base_years: 29.0,
    }
}

/// As many faces as the image has bytes behind the first, each as old as its byte says.
fn faces(image: &[u8], is_explained: bool) -> Vec<FacePrediction> {
    let face = |age: &u8| FacePrediction {
        r#box: Some(FaceBox {
            left: -3,
            top: i32::from(*age),
            width: 120,
            height: 120,
        }),
        score: 7.5,
        age: f64::from(*age),
        explanation_png: match is_explained {
            true => vec![b'F', *age].into(),
            false => Vec::new().into(),
        },
        explanation: is_explained.then(explanation),
        ..FacePrediction::default()
    };
    image[1..].iter().map(face).collect()
}

#[tonic::async_trait]
impl SystemService for Service {
    async fn get_server_info(
        &self,
        _: Request<GetServerInfoRequest>,
    ) -> Result<Response<GetServerInfoResponse>, Status> {
        Ok(Response::new(GetServerInfoResponse {
            version: "0.1.0".to_owned(),
            device: "cpu".to_owned(),
            limits: Some(self.0.limits),
            features: self.0.features.clone(),
            ..GetServerInfoResponse::default()
        }))
    }

    async fn get_log_level(
        &self,
        _: Request<GetLogLevelRequest>,
    ) -> Result<Response<GetLogLevelResponse>, Status> {
        let directives = self.0.log_level.lock().unwrap().clone();
        Ok(Response::new(GetLogLevelResponse { directives }))
    }

    async fn set_log_level(
        &self,
        request: Request<SetLogLevelRequest>,
    ) -> Result<Response<SetLogLevelResponse>, Status> {
        let directives = request.into_inner().directives;
        if directives == "loud" {
            return Err(Status::invalid_argument("directives: no such level"));
        }
        let mut level = self.0.log_level.lock().unwrap();
        let previous = std::mem::replace(&mut *level, directives.clone());
        Ok(Response::new(SetLogLevelResponse {
            directives,
            previous,
        }))
    }
}
