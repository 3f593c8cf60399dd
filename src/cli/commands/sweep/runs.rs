//! Keeps a few runs in the server's queue, and follows the first of them until it ends.

use std::mem;

use tonic::{Code, Response, Status};

use crate::{
    cli::{
        client::{Client, EventStream, Step, is_final, request, request_within},
        commands::{
            sweep::request::{LABEL, Run},
            train::START_TIMEOUT,
        },
        context::Context,
        error::{Error, retry_delay},
        report,
    },
    proto::v1::{GetTrainingRequest, StreamEpochMetricsRequest, Training, training_event::Kind},
};

#[derive(Debug)]
enum State {
    Planned,
    Started,
    Ended(Box<Training>),
}

enum Start {
    Started,
    /// It ended in an earlier call of the program.
    Ended(Box<Training>),
    /// The server's queue is full.
    Full(Status),
}

/// All runs with their states.
#[derive(Debug)]
pub(super) struct Runs {
    runs: Vec<(Run, State)>,
    is_resumed: bool,
    /// Maximum number of runs that are queued or running.
    max_started: usize,
}

impl Runs {
    pub(super) fn new(runs: Vec<Run>, is_resumed: bool, max_started: usize) -> Self {
        let runs = runs.into_iter().map(|run| (run, State::Planned)).collect();
        Runs {
            runs,
            is_resumed,
            max_started,
        }
    }

    /// Names of the queued and running trainings, in the order of the queue.
    pub(super) fn started(&self) -> impl Iterator<Item = &str> {
        let is_started = |state: &State| matches!(state, State::Started);
        self.runs
            .iter()
            .filter(move |(_, state)| is_started(state))
            .map(|(run, _)| run.name.as_str())
    }

    pub(super) fn ended(&self) -> impl Iterator<Item = (&Run, &Training)> {
        self.runs.iter().filter_map(|(run, state)| match state {
            State::Ended(training) => Some((run, training.as_ref())),
            State::Planned | State::Started => None,
        })
    }

    /// Starts and follows runs until all have ended. Dropping the future leaves started runs to the
    /// server. A full queue is retried.
    ///
    /// # Errors
    /// A refusal for another reason, or an unreachable server.
    pub(super) async fn finish(
        &mut self,
        client: &Client,
        context: &mut Context,
    ) -> Result<(), Error> {
        let mut refusals = 0;
        loop {
            let full = self.start_some(client, context).await?;
            let first = self
                .runs
                .iter()
                .position(|(_, state)| matches!(state, State::Started));
            if let Some(index) = first {
                refusals = 0;
                let training = self.follow(index, client, context).await?;
                self.runs[index].1 = State::Ended(Box::new(training));
                continue;
            }
            let Some(status) = full else {
                return Ok(());
            };
            // Trainings of others fill the queue.
            if refusals == 0 {
                let reason = status.message();
                context
                    .output
                    .note(&format!("{reason}; waiting for the queue."));
            }
            refusals += 1;
            let delay = context.retry.delay(refusals, retry_delay(&status));
            tokio::time::sleep(delay).await;
        }
    }

    /// Checks for the trainings of an earlier call.
    pub(super) async fn any_exists(
        &self,
        client: &Client,
        context: &Context,
    ) -> Result<bool, Error> {
        for (run, _) in &self.runs {
            if find(&run.name, client, context).await?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Starts as many runs as allowed; returns the refusal of the next one if the queue is full.
    async fn start_some(
        &mut self,
        client: &Client,
        context: &Context,
    ) -> Result<Option<Status>, Error> {
        loop {
            let next = self
                .runs
                .iter()
                .position(|(_, state)| matches!(state, State::Planned));
            let has_room = self.started().count() < self.max_started;
            let Some(index) = next.filter(|_| has_room) else {
                return Ok(None);
            };
            let (run, state) = &mut self.runs[index];
            let existing = match self.is_resumed {
                true => existing(run, client, context).await?,
                false => None,
            };
            let start = match existing {
                Some(start) => start,
                None => start(run, client, context).await?,
            };
            *state = match start {
                Start::Started => State::Started,
                Start::Ended(training) => State::Ended(training),
                Start::Full(status) => return Ok(Some(status)),
            };
        }
    }

    /// Prints the epochs of a run until it ends.
    async fn follow(
        &self,
        index: usize,
        client: &Client,
        context: &mut Context,
    ) -> Result<Training, Error> {
        let (run, _) = &self.runs[index];
        let count = self.runs.len();
        let label = format!("[{}/{count}] {}", index + 1, run.description());
        let stream = StreamEpochMetricsRequest {
            name: run.name.clone(),
            progress: context.output.can_draw(),
            ..StreamEpochMetricsRequest::default()
        };
        let mut events = EventStream::new(client.clone(), context.retry, stream);
        let mut is_lost = false;
        loop {
            let event = match events.next().await? {
                Step::Event(event) => event,
                Step::Lost(cause) => {
                    if !mem::replace(&mut is_lost, true) {
                        context.output.note(&report::lost_sentence(&cause));
                    }
                    continue;
                }
                Step::End => break,
            };
            is_lost = false;
            if let Some(Kind::EpochCompleted(metrics)) = &event.kind {
                let line = report::epoch_line(metrics);
                context.output.note(&format!("{label}: {line}"));
            }
            if let Some(Kind::Progress(progress)) = &event.kind {
                let fraction = (index as f64 + progress.fraction) / count as f64;
                let text = format!("{label}: {}", report::progress_text(progress));
                context.output.draw(fraction, text);
            }
        }
        let training = find(&run.name, client, context).await?;
        training.ok_or_else(|| Error::Contract(format!("{} disappeared after it ended", run.name)))
    }
}

/// Queues a run. The request id makes the call idempotent.
async fn start(run: &Run, client: &Client, context: &Context) -> Result<Start, Error> {
    client
        .repeat(&context.retry, async || {
            let request = request_within(run.request.clone(), START_TIMEOUT);
            match client.trainings().start_training(request).await {
                Ok(_) => Ok(Response::new(Start::Started)),
                Err(status) if status.code() == Code::ResourceExhausted => {
                    Ok(Response::new(Start::Full(status)))
                }
                Err(status) => Err(status),
            }
        })
        .await
}

/// A run that an earlier call of the program started.
async fn existing(run: &Run, client: &Client, context: &Context) -> Result<Option<Start>, Error> {
    let Some(training) = find(&run.name, client, context).await? else {
        return Ok(None);
    };
    let is_of_sweep = training.labels.get(LABEL) == run.request.labels.get(LABEL);
    let mut as_planned = training.spec.clone().unwrap_or_default();
    for assignment in &run.fields {
        assignment.apply(&mut as_planned);
    }
    if !is_of_sweep || training.spec.as_ref() != Some(&as_planned) {
        return Err(Error::Usage(format!(
            "{} exists but is not this sweep's run with {}; resume with the same --grid, --random, --range and --seed",
            run.name,
            run.description()
        )));
    }
    Ok(Some(match is_final(training.state()) {
        true => Start::Ended(Box::new(training)),
        false => Start::Started,
    }))
}

async fn find(name: &str, client: &Client, context: &Context) -> Result<Option<Training>, Error> {
    client
        .repeat(&context.retry, async || {
            let request = request(GetTrainingRequest {
                name: name.to_owned(),
            });
            match client.trainings().get_training(request).await {
                Ok(response) => Ok(Response::new(response.into_inner().training)),
                Err(status) if status.code() == Code::NotFound => Ok(Response::new(None)),
                Err(status) => Err(status),
            }
        })
        .await
}
