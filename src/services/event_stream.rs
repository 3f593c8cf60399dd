//! StreamEpochMetrics: the durable log of events, replayed and then followed.
//!
//! The log is read to its head, then the subscription is waited for, then the log is read again. The subscription is only a wake-up, so a slow
//! reader loses nothing, and costs no memory beyond a page.

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
    store::{Kind, Store, is_final},
    training::supervisor::ProgressReports,
};

use super::status;

/// Events read at once.
const PAGE: u32 = 256;

/// What a stream is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// One training, after a sequence.
    Training {
        /// Its id.
        id: String,
        /// The last sequence that the client has seen.
        after: u64,
    },
    /// All trainings, after a cursor.
    All {
        /// The last cursor that the client has seen.
        after: i64,
    },
}

/// A follower of the log.
pub struct EventStream {
    /// The log.
    pub store: Store,
    /// What to read.
    pub subject: Subject,
    /// Whether to go on after the head.
    pub follow: bool,
    /// Longest silence.
    pub heartbeat: Duration,
    /// Reports of running trainings, if the client wants them.
    pub progress: Option<watch::Receiver<ProgressReports>>,
    /// Ends the stream with UNAVAILABLE.
    pub shutdown: CancellationToken,
}

type Sender = mpsc::Sender<Result<v1::StreamEpochMetricsResponse, Status>>;

impl EventStream {
    /// Fails at once when the subject or its cursor does not exist.
    ///
    /// # Errors
    /// NOT_FOUND, OUT_OF_RANGE.
    pub async fn check(&self) -> Result<(), Status> {
        self.page(1).await.map(|_| ())
    }

    /// Sends events until the end, the client leaves, or the server ends.
    pub async fn run(mut self, sender: Sender) {
        let shutdown = self.shutdown.clone();
        let end = tokio::select! {
            end = self.send_all(&sender) => end,
            () = shutdown.cancelled() => Err(status::shutting_down()),
        };
        if let Err(status) = end {
            // A client that has left needs no status.
            drop(sender.send(Err(status)).await);
        }
    }

    async fn send_all(&mut self, sender: &Sender) -> Result<(), Status> {
        let mut appended = self.store.subscribe();
        let mut progress = self.progress.take();
        let mut shown: ProgressReports = HashMap::new();
        let mut next_heartbeat = Instant::now() + self.heartbeat;
        loop {
            appended.mark_unchanged();
            loop {
                let page = self.page(PAGE).await?;
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
            if !self.follow || self.is_over().await? {
                return Ok(());
            }
            tokio::select! {
                changed = appended.changed() => if changed.is_err() {
                    return Err(status::shutting_down());
                },
                reports = next_reports(&mut progress) => {
                    for (id, report) in reports {
                        if !self.concerns(&id) || shown.get(&id) == Some(&report) {
                            continue;
                        }
                        shown.insert(id.clone(), report.clone());
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

    async fn page(&self, limit: u32) -> Result<Vec<v1::TrainingEvent>, Status> {
        let page = match &self.subject {
            Subject::Training { id, after } => self.store.events_after(id, *after, limit).await,
            Subject::All { after } => self.store.events_after_global(*after, limit).await,
        };
        Ok(page.map_err(status::from_store)?.items)
    }

    fn advance(&mut self, event: &v1::TrainingEvent) -> Result<(), Status> {
        match &mut self.subject {
            Subject::Training { after, .. } => *after = event.sequence,
            Subject::All { after } => {
                *after =
                    crate::store::parse_token(&event.resume_token).map_err(status::from_store)?;
            }
        }
        Ok(())
    }

    /// Whether a single training had ended before the client's cursor, so that nothing will come.
    async fn is_over(&self) -> Result<bool, Status> {
        let Subject::Training { id, after } = &self.subject else {
            return Ok(false);
        };
        let training = self.store.training(id).await.map_err(status::from_store)?;
        Ok(is_final(training.state()) && training.last_sequence <= *after)
    }

    fn concerns(&self, training: &str) -> bool {
        match &self.subject {
            Subject::Training { id, .. } => id == training,
            Subject::All { .. } => true,
        }
    }
}

/// Reads what a client wants to follow.
///
/// # Errors
/// A name or token that is not of its form, or a cursor past the head.
pub async fn subject(
    store: &Store,
    name: &str,
    after_sequence: u64,
    resume_token: &str,
) -> Result<Subject, Status> {
    let token = match resume_token {
        "" => None,
        token => Some(
            crate::store::parse_token(token)
                .map_err(|error| status::invalid("resume_token", &error.to_string()))?,
        ),
    };
    if name == "trainings/-" {
        if after_sequence > 0 {
            return Err(status::invalid(
                "after_sequence",
                "it counts the events of one training; for trainings/- give resume_token",
            ));
        }
        return Ok(Subject::All {
            after: token.unwrap_or(0),
        });
    }
    let id = names::training_id(name).map_err(|error| status::bad_name("name", &error))?;
    let after = match token {
        Some(cursor) => store
            .sequence_at(id, cursor)
            .await
            .map_err(status::from_store)?,
        None => after_sequence,
    };
    Ok(Subject::Training {
        id: id.to_owned(),
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

/// Waits for new progress reports; for ever when the client does not want any.
async fn next_reports(progress: &mut Option<watch::Receiver<ProgressReports>>) -> ProgressReports {
    if let Some(receiver) = progress
        && receiver.changed().await.is_ok()
    {
        return receiver.borrow_and_update().clone();
    }
    std::future::pending().await
}
