//! An event stream that survives lost connections.
//!
//! The stream keeps the cursor of the last event and reopens a lost connection from there, so that
//! a restart of the server neither loses nor repeats an event.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tonic::{Request, Status, Streaming};

use crate::{
    cli::{
        client::{Client, RetryPolicy, lost_cause, request},
        error::{Error, is_lost, retry_delay},
    },
    proto::v1::{
        GetTrainingRequest, StreamEpochMetricsRequest, StreamEpochMetricsResponse, TrainingEvent,
        TrainingState, training_event::Kind,
    },
};

/// The wildcard name of the stream of all trainings.
pub(crate) const ALL_TRAININGS: &str = "trainings/-";

#[derive(Debug)]
pub(crate) enum Step {
    /// An event, a progress report or a heartbeat.
    Event(Box<TrainingEvent>),
    /// The connection was lost for this reason; the next step opens another one.
    Lost(String),
    /// The training ended, or a stream that does not follow reached the latest event.
    End,
}

#[derive(Debug)]
pub(crate) struct EventStream {
    client: Client,
    retry: RetryPolicy,
    request: StreamEpochMetricsRequest,
    stream: Option<Streaming<StreamEpochMetricsResponse>>,
    /// Failures since the last message.
    failures: u32,
    retry_delay: Option<Duration>,
    last_contact: Instant,
    final_state_seen: bool,
}

impl EventStream {
    pub(crate) fn new(
        client: Client,
        retry: RetryPolicy,
        mut request: StreamEpochMetricsRequest,
    ) -> Self {
        // Three heartbeats may be late before the stream counts as lost.
        let interval = retry.heartbeat_timeout / 3;
        request.heartbeat_interval = prost_types::Duration::try_from(interval).ok();
        Self {
            client,
            retry,
            request,
            stream: None,
            failures: 0,
            retry_delay: None,
            last_contact: Instant::now(),
            final_state_seen: false,
        }
    }

    /// The request that resumes after the last event.
    pub(crate) fn cursor(&self) -> &StreamEpochMetricsRequest {
        &self.request
    }

    /// # Errors
    /// The server's refusal, or [`Error::LostContact`] after `stream_timeout` without contact.
    pub(crate) async fn next(&mut self) -> Result<Step, Error> {
        if self.stream.is_none() {
            if self.failures > 0 {
                sleep(self.retry.delay(self.failures, self.retry_delay)).await;
            }
            match self.open().await {
                Ok(stream) => self.stream = Some(stream),
                Err(status) => return self.lose(status),
            }
        }
        loop {
            let Some(stream) = &mut self.stream else {
                return Ok(Step::Lost("the stream was closed".to_owned()));
            };
            let message = match timeout(self.retry.heartbeat_timeout, stream.message()).await {
                Err(_) => return self.lose(Status::unavailable("no heartbeat was received")),
                Ok(Err(status)) => return self.lose(status),
                Ok(Ok(None)) => return self.close().await,
                Ok(Ok(Some(message))) => message,
            };
            self.last_contact = Instant::now();
            self.failures = 0;
            if let Some(event) = message.event.and_then(|event| self.accept(event)) {
                return Ok(Step::Event(Box::new(event)));
            }
        }
    }

    async fn open(&self) -> Result<Streaming<StreamEpochMetricsResponse>, Status> {
        let mut trainings = self.client.trainings();
        let call = trainings.stream_epoch_metrics(Request::new(self.request.clone()));
        match timeout(self.retry.heartbeat_timeout, call).await {
            Err(_) => Err(Status::unavailable("the stream did not open")),
            Ok(response) => Ok(response?.into_inner()),
        }
    }

    /// Moves the cursor past the event; `None` for an event that was received before.
    fn accept(&mut self, event: TrainingEvent) -> Option<TrainingEvent> {
        if event.sequence == 0 {
            return Some(event);
        }
        let is_single = self.request.name != ALL_TRAININGS;
        if is_single {
            if event.sequence <= self.request.after_sequence {
                return None;
            }
            self.request.after_sequence = event.sequence;
            if let Some(Kind::StateChanged(change)) = &event.kind {
                self.final_state_seen = is_final(change.state());
            }
        }
        // The cursor of a single training is the sequence, unless the user started with a token.
        if !is_single || !self.request.resume_token.is_empty() {
            self.request.resume_token.clone_from(&event.resume_token);
        }
        Some(event)
    }

    /// Handles a stream that closed with OK. That is expected after a final state and without
    /// following; anything else was cut by a proxy.
    async fn close(&mut self) -> Result<Step, Error> {
        self.stream = None;
        if self.final_state_seen || self.request.follow == Some(false) {
            return Ok(Step::End);
        }
        if self.request.name != ALL_TRAININGS {
            // A cursor at the last event of an ended training gets an empty stream.
            let name = self.request.name.clone();
            let mut trainings = self.client.trainings();
            let response = trainings
                .get_training(request(GetTrainingRequest { name }))
                .await;
            match response {
                Ok(response) => {
                    let training = response.into_inner().training;
                    if training.is_some_and(|training| is_final(training.state())) {
                        return Ok(Step::End);
                    }
                }
                Err(status) => return self.lose(status),
            }
        }
        self.lose(Status::unavailable(
            "the stream ended before the training did",
        ))
    }

    fn lose(&mut self, status: Status) -> Result<Step, Error> {
        self.stream = None;
        self.retry_delay = retry_delay(&status);
        if !is_lost(&status) && self.retry_delay.is_none() {
            return Err(Error::Refused(Box::new(status)));
        }
        self.failures += 1;
        let silence = self.last_contact.elapsed();
        if silence > self.retry.stream_timeout {
            return Err(Error::LostContact {
                server: self.client.server().to_owned(),
                silence,
                cause: lost_cause(&status),
                command: resume_command(&self.request),
            });
        }
        Ok(Step::Lost(lost_cause(&status)))
    }
}

/// The command that resumes after the last event.
pub(crate) fn resume_command(cursor: &StreamEpochMetricsRequest) -> String {
    if cursor.name == ALL_TRAININGS {
        return match cursor.resume_token.as_str() {
            "" => "visage watch -".to_owned(),
            token => format!("visage watch - --resume-token {token}"),
        };
    }
    match cursor.after_sequence {
        0 => format!("visage watch {}", cursor.name),
        sequence => format!("visage watch {} --after {sequence}", cursor.name),
    }
}

pub(crate) fn is_final(state: TrainingState) -> bool {
    matches!(
        state,
        TrainingState::Succeeded | TrainingState::Failed | TrainingState::Cancelled
    )
}
