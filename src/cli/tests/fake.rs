//! A server of the API whose responses the tests choose. Calls that no test makes are
//! unimplemented.

use std::{
    collections::VecDeque,
    net::TcpListener,
    pin::Pin,
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
};

use tokio::{runtime::Builder, sync::oneshot};
use tokio_stream::{Stream, StreamExt as _, wrappers::TcpListenerStream};
use tonic::{Code, Request, Response, Status, Streaming, transport::Server};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::proto::v1::{
    prediction_service_server::{PredictionService, PredictionServiceServer},
    system_service_server::{SystemService, SystemServiceServer},
    training_service_server::{TrainingService, TrainingServiceServer},
    *,
};

/// End of one opening of the event stream.
#[derive(Clone, Debug)]
pub(super) enum Ending {
    /// A status after this many events.
    Fails(usize, Status),
    /// OK after this many events, although the training continues.
    Closes(usize),
    /// No message after this many events.
    Hangs(usize),
    /// All events, then all again.
    Repeats,
}

/// Prepared responses, and the requests that were received.
#[derive(Default)]
pub(super) struct State {
    pub(super) events: Vec<TrainingEvent>,
    pub(super) training: Training,
    /// One for each opening of the stream; further ones send all events and close.
    pub(super) endings: Mutex<VecDeque<Ending>>,
    /// One for each StartTraining; further ones succeed.
    pub(super) refusals: Mutex<VecDeque<Status>>,
    pub(super) limits: Limits,
    pub(super) features: Vec<String>,
    /// Reports the index of a bad image.
    pub(super) names_bad_images: bool,
    /// The file of DownloadCheckpoint, and its description.
    pub(super) file: Vec<u8>,
    pub(super) size_bytes: u64,
    pub(super) sha256: String,
    pub(super) opened: Mutex<Vec<StreamEpochMetricsRequest>>,
    pub(super) started: Mutex<Vec<StartTrainingRequest>>,
    pub(super) predicted: Mutex<Vec<PredictRequest>>,
}

/// A running server. Dropping it closes all connections, like a killed process.
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

    /// Runs on a runtime of its own, because connections are tasks that end with it.
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

type MessageStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn unused<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("unused by the tests"))
}

#[tonic::async_trait]
impl TrainingService for Service {
    type StreamEpochMetricsStream = MessageStream<StreamEpochMetricsResponse>;
    type DownloadCheckpointStream = MessageStream<DownloadCheckpointResponse>;

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
            estimate: None,
        }))
    }

    async fn get_training(
        &self,
        request: Request<GetTrainingRequest>,
    ) -> Result<Response<GetTrainingResponse>, Status> {
        let name = request.into_inner().name;
        if name != self.0.training.name {
            return Err(Status::not_found(format!("{name} does not exist")));
        }
        Ok(Response::new(GetTrainingResponse {
            training: Some(self.0.training.clone()),
        }))
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

    async fn download_checkpoint(
        &self,
        request: Request<DownloadCheckpointRequest>,
    ) -> Result<Response<Self::DownloadCheckpointStream>, Status> {
        let file = CheckpointFile {
            name: request.into_inner().file,
            size_bytes: self.0.size_bytes,
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

    async fn list_trainings(
        &self,
        _: Request<ListTrainingsRequest>,
    ) -> Result<Response<ListTrainingsResponse>, Status> {
        unused()
    }

    async fn stop_training(
        &self,
        _: Request<StopTrainingRequest>,
    ) -> Result<Response<StopTrainingResponse>, Status> {
        unused()
    }

    async fn pause_training(
        &self,
        _: Request<PauseTrainingRequest>,
    ) -> Result<Response<PauseTrainingResponse>, Status> {
        unused()
    }

    async fn resume_training(
        &self,
        _: Request<ResumeTrainingRequest>,
    ) -> Result<Response<ResumeTrainingResponse>, Status> {
        unused()
    }

    async fn update_training(
        &self,
        _: Request<UpdateTrainingRequest>,
    ) -> Result<Response<UpdateTrainingResponse>, Status> {
        unused()
    }

    async fn cancel_training(
        &self,
        _: Request<CancelTrainingRequest>,
    ) -> Result<Response<CancelTrainingResponse>, Status> {
        unused()
    }

    async fn delete_training(
        &self,
        _: Request<DeleteTrainingRequest>,
    ) -> Result<Response<DeleteTrainingResponse>, Status> {
        Ok(Response::new(DeleteTrainingResponse {}))
    }

    async fn list_epoch_metrics(
        &self,
        _: Request<ListEpochMetricsRequest>,
    ) -> Result<Response<ListEpochMetricsResponse>, Status> {
        unused()
    }

    async fn list_checkpoints(
        &self,
        _: Request<ListCheckpointsRequest>,
    ) -> Result<Response<ListCheckpointsResponse>, Status> {
        unused()
    }
}

/// An image that starts with `bad` is refused; the age of any other is its first byte.
#[tonic::async_trait]
impl PredictionService for Service {
    type PredictBatchStream = MessageStream<PredictBatchResponse>;

    async fn predict_batch(
        &self,
        _: Request<Streaming<PredictBatchRequest>>,
    ) -> Result<Response<Self::PredictBatchStream>, Status> {
        unused()
    }

    async fn predict(
        &self,
        request: Request<PredictRequest>,
    ) -> Result<Response<PredictResponse>, Status> {
        let request = request.into_inner();
        self.0.predicted.lock().unwrap().push(request.clone());
        let bad = request
            .images
            .iter()
            .position(|image| image.starts_with(b"bad"));
        if let Some(index) = bad {
            if !self.0.names_bad_images {
                return Err(Status::invalid_argument("an image cannot be read"));
            }
            let field = format!("images[{index}]");
            let details = ErrorDetails::with_bad_request_violation(field, "is not an image");
            return Err(Status::with_error_details(
                Code::InvalidArgument,
                "the request is not valid",
                details,
            ));
        }
        let predictions = request.images.iter().map(|image| Prediction {
            age: f64::from(image[0]),
            ..Prediction::default()
        });
        Ok(Response::new(PredictResponse {
            predictions: predictions.collect(),
            model_version: "models/age/versions/3".to_owned(),
            ..PredictResponse::default()
        }))
    }
}

#[tonic::async_trait]
impl SystemService for Service {
    async fn get_server_info(
        &self,
        _: Request<GetServerInfoRequest>,
    ) -> Result<Response<GetServerInfoResponse>, Status> {
        Ok(Response::new(GetServerInfoResponse {
            version: "0.1.0".to_owned(),
            limits: Some(self.0.limits),
            features: self.0.features.clone(),
            ..GetServerInfoResponse::default()
        }))
    }

    async fn get_log_level(
        &self,
        _: Request<GetLogLevelRequest>,
    ) -> Result<Response<GetLogLevelResponse>, Status> {
        unused()
    }

    async fn set_log_level(
        &self,
        _: Request<SetLogLevelRequest>,
    ) -> Result<Response<SetLogLevelResponse>, Status> {
        unused()
    }
}
