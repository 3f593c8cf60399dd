//! An event stream that outlives its connection.
//!
//! The cursor of the last event seen is kept, and a lost stream is opened again from there, so that a restart of the server neither loses
//! an event nor repeats one.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tonic::{Request, Status, Streaming};

use crate::proto::v1::{
    GetTrainingRequest, StreamEpochMetricsRequest, StreamEpochMetricsResponse, TrainingEvent,
    TrainingState, training_event::Kind,
};

use super::{
    client::{Client, Patience, lost_cause, request},
    error::{Error, is_lost, retry_delay},
};

/// The name that stands for all trainings.
pub(super) const ALL: &str = "trainings/-";

/// What comes next.
#[derive(Debug)]
pub(super) enum Step {
    /// An event, a progress report or a heartbeat.
    Event(Box<TrainingEvent>),
    /// The connection was lost, for this reason; another is made at the next step.
    Lost(String),
    /// The training has ended, or the head was reached and nobody wants to follow.
    End,
}

#[derive(Debug)]
pub(super) struct Follow {
    client: Client,
    patience: Patience,
    request: StreamEpochMetricsRequest,
    stream: Option<Streaming<StreamEpochMetricsResponse>>,
    /// Failures since the last message.
    failures: u32,
    /// What the server asked us to wait.
    asked: Option<Duration>,
    last_contact: Instant,
    final_state_seen: bool,
}

impl Follow {
    pub(super) fn new(
        client: Client,
        patience: Patience,
        mut request: StreamEpochMetricsRequest,
    ) -> Self {
        // Three heartbeats may be late before the stream counts as lost.
        request.heartbeat_interval = prost_types::Duration::try_from(patience.silence / 3).ok();
        Self {
            client,
            patience,
            request,
            stream: None,
            failures: 0,
            asked: None,
            last_contact: Instant::now(),
            final_state_seen: false,
        }
    }

    /// The request that would go on after the last event seen.
    pub(super) fn cursor(&self) -> &StreamEpochMetricsRequest {
        &self.request
    }

    /// Waits for what comes next.
    ///
    /// # Errors
    /// What the server refused with, or [`Error::LostContact`] after too long a silence.
    pub(super) async fn next(&mut self) -> Result<Step, Error> {
        if self.stream.is_none() {
            if self.failures > 0 {
                sleep(self.patience.pause(self.failures, self.asked)).await;
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
            let message = match timeout(self.patience.silence, stream.message()).await {
                Err(_) => return self.lose(Status::unavailable("not even a heartbeat came")),
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
        match timeout(self.patience.silence, call).await {
            Err(_) => Err(Status::unavailable("the stream did not open")),
            Ok(response) => Ok(response?.into_inner()),
        }
    }

    /// Moves the cursor past the event; `None` for one that was seen before.
    fn accept(&mut self, event: TrainingEvent) -> Option<TrainingEvent> {
        if event.sequence == 0 {
            return Some(event);
        }
        let is_single = self.request.name != ALL;
        if is_single {
            if event.sequence <= self.request.after_sequence {
                return None;
            }
            self.request.after_sequence = event.sequence;
            if let Some(Kind::StateChanged(change)) = &event.kind {
                self.final_state_seen = is_final(change.state());
            }
        }
        // For a single training the sequence is the cursor, unless the user began with a token.
        if !is_single || !self.request.resume_token.is_empty() {
            self.request.resume_token.clone_from(&event.resume_token);
        }
        Some(event)
    }

    /// The stream ended politely: right after a final state, and when it was not to follow; else somebody in between has cut it.
    async fn close(&mut self) -> Result<Step, Error> {
        self.stream = None;
        if self.final_state_seen || self.request.follow == Some(false) {
            return Ok(Step::End);
        }
        if self.request.name != ALL {
            // A cursor after the last event of an ended training gets an empty stream.
            let name = self.request.name.clone();
            match self
                .client
                .trainings()
                .get_training(request(GetTrainingRequest { name }))
                .await
            {
                Ok(response) => {
                    let state = response
                        .into_inner()
                        .training
                        .map(|training| training.state());
                    if state.is_some_and(is_final) {
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
        self.asked = retry_delay(&status);
        if !is_lost(&status) && self.asked.is_none() {
            return Err(Error::Refused(Box::new(status)));
        }
        self.failures += 1;
        let silence = self.last_contact.elapsed();
        if silence > self.patience.stream {
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

/// What to type to go on after the last event seen.
pub(super) fn resume_command(cursor: &StreamEpochMetricsRequest) -> String {
    if cursor.name == ALL {
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

/// Whether a training in this state has ended.
pub(super) fn is_final(state: TrainingState) -> bool {
    matches!(
        state,
        TrainingState::Succeeded | TrainingState::Failed | TrainingState::Cancelled
    )
}
