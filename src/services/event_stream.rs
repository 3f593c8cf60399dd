//! StreamEpochMetrics: replays the durable event log and then follows it.
//!
//! The stream reads the log to its end, waits for the subscription, and reads again. The
//! subscription is only a wake-up, so a slow reader loses no event and needs memory for one page.
//! Streams of the same trainings share their reads (`event_log`).

use std::{collections::HashMap, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::{
    names,
    proto::v1,
    store::{self, Kind, Store, is_final},
    training::supervisor::ProgressReports,
};

use super::{event_log::EventLog, status, stream_limit::OpenStream};

/// The events of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Subject {
    /// One training, after the last sequence that the client has received. A later training of the
    /// same id has another number.
    Training { id: String, number: i64, after: u64 },
    /// All trainings, after the last cursor that the client has received.
    All { after: i64 },
}

pub(crate) struct EventStream {
    pub(crate) log: EventLog,
    pub(crate) subject: Subject,
    /// Continue at the end of the log.
    pub(crate) follow: bool,
    /// Maximum time between two messages.
    pub(crate) heartbeat: Duration,
    /// Progress of running trainings, if requested.
    pub(crate) progress: Option<watch::Receiver<ProgressReports>>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) _counted: OpenStream,
}

type Sender = mpsc::Sender<Result<v1::StreamEpochMetricsResponse, Status>>;

impl EventStream {
    /// # Errors
    /// NOT_FOUND for an unknown training, OUT_OF_RANGE for a cursor past the end.
    pub(crate) async fn check(&self) -> Result<(), Status> {
        let reader = self.log.reader(&self.subject);
        let latest = *self.log.store().subscribe().borrow();
        reader.page(&self.subject, latest).await.map(|_| ())
    }

    /// Sends events until the training ends, the client disconnects, or the server shuts down.
    pub(crate) async fn run(mut self, sender: Sender) {
        let shutdown = self.shutdown.clone();
        let result = tokio::select! {
            result = self.send_all(&sender) => result,
            () = shutdown.cancelled() => Err(status::shutting_down()),
        };
        if let Err(status) = result {
            // Fails if the client has disconnected.
            drop(sender.send(Err(status)).await);
        }
    }

    async fn send_all(&mut self, sender: &Sender) -> Result<(), Status> {
        let reader = self.log.reader(&self.subject);
        let mut appended = self.log.store().subscribe();
        let mut progress = self.progress.take();
        let mut sent: ProgressReports = HashMap::new();
        let mut next_heartbeat = Instant::now() + self.heartbeat;
        loop {
            let latest = *appended.borrow_and_update();
            loop {
                let page = reader.page(&self.subject, latest).await?;
                if page.is_empty() {
                    break;
                }
                for event in page {
                    self.advance(&event)?;
                    let ends =
                        matches!(self.subject, Subject::Training { .. }) && ends_training(&event);
                    if !send(sender, event).await || ends {
                        return Ok(());
                    }
                    next_heartbeat = Instant::now() + self.heartbeat;
                }
            }
            if !self.follow || reader.is_finished(&self.subject).await {
                return Ok(());
            }
            tokio::select! {
                changed = appended.changed() => if changed.is_err() {
                    return Err(status::shutting_down());
                },
                reports = next_reports(&mut progress) => {
                    for (id, report) in reports {
                        if !self.concerns(&id) || sent.get(&id) == Some(&report) {
                            continue;
                        }
                        sent.insert(id.clone(), report.clone());
                        let event = unstored(format!("trainings/{id}"), Kind::Progress(report));
                        if !send(sender, event).await {
                            return Ok(());
                        }
                        next_heartbeat = Instant::now() + self.heartbeat;
                    }
                }
                () = sleep_until(next_heartbeat) => {
                    if !send(sender, unstored(String::new(), Kind::Heartbeat(v1::Heartbeat {}))).await {
                        return Ok(());
                    }
                    next_heartbeat = Instant::now() + self.heartbeat;
                }
                () = sender.closed() => return Ok(()),
            }
        }
    }

    fn advance(&mut self, event: &v1::TrainingEvent) -> Result<(), Status> {
        match &mut self.subject {
            Subject::Training { after, .. } => *after = event.sequence,
            Subject::All { after } => {
                *after = store::parse_token(&event.resume_token)?;
            }
        }
        Ok(())
    }

    fn concerns(&self, training: &str) -> bool {
        match &self.subject {
            Subject::Training { id, .. } => id == training,
            Subject::All { .. } => true,
        }
    }
}

/// # Errors
/// INVALID_ARGUMENT for a malformed name or token, OUT_OF_RANGE for a cursor past the end.
pub(crate) async fn subject(
    store: &Store,
    name: &str,
    after_sequence: u64,
    resume_token: &str,
) -> Result<Subject, Status> {
    let token = match resume_token {
        "" => None,
        token => Some(
            store::parse_token(token).map_err(|error| status::invalid("resume_token", error))?,
        ),
    };
    if name == "trainings/-" {
        if after_sequence > 0 {
            return Err(status::invalid(
                "after_sequence",
                "must be 0 for trainings/-, because sequences belong to one training; set resume_token instead",
            ));
        }
        return Ok(Subject::All {
            after: token.unwrap_or(0),
        });
    }
    let id = names::training_id(name).map_err(|error| status::invalid("name", error))?;
    let number = store.training_number(id).await?;
    let after = match token {
        Some(cursor) => store.sequence_at(id, cursor).await?,
        None => after_sequence,
    };
    Ok(Subject::Training {
        id: id.to_owned(),
        number,
        after,
    })
}

async fn send(sender: &Sender, event: v1::TrainingEvent) -> bool {
    let response = v1::StreamEpochMetricsResponse { event: Some(event) };
    sender.send(Ok(response)).await.is_ok()
}

fn ends_training(event: &v1::TrainingEvent) -> bool {
    match &event.kind {
        Some(Kind::StateChanged(change)) => is_final(change.state()),
        _ => false,
    }
}

fn unstored(training: String, kind: Kind) -> v1::TrainingEvent {
    v1::TrainingEvent {
        training,
        event_time: Some(std::time::SystemTime::now().into()),
        kind: Some(kind),
        ..Default::default()
    }
}

/// Waits for new progress reports; forever if the client did not request any.
async fn next_reports(progress: &mut Option<watch::Receiver<ProgressReports>>) -> ProgressReports {
    if let Some(receiver) = progress
        && receiver.changed().await.is_ok()
    {
        return receiver.borrow_and_update().clone();
    }
    std::future::pending().await
}
