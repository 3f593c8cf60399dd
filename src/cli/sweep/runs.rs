//! The runs of a sweep: a few at a time are put into the server's queue, and the first of them is followed until it ends.

use tonic::{Code, Response, Status};

use crate::{
    cli::{
        Context, Error,
        client::{Client, request, request_within},
        error::retry_delay,
        fields::Assignment,
        follow::{Follow, Step, is_final},
        report,
        train::START_TIMEOUT,
    },
    proto::v1::{
        GetTrainingRequest, StartTrainingRequest, StreamEpochMetricsRequest, Training,
        training_event::Kind,
    },
};

use super::{LABEL, described};

/// A training of the sweep.
#[derive(Debug)]
pub(super) struct Run {
    /// `trainings/{id}`.
    pub(super) name: String,
    /// What sets it apart from the others.
    pub(super) fields: Vec<Assignment>,
    /// What it is started with.
    pub(super) request: StartTrainingRequest,
}

#[derive(Debug)]
enum State {
    Planned,
    Started,
    Ended(Box<Training>),
}

/// Whether a run could be started.
enum Start {
    Started,
    /// It had ended before.
    Ended(Box<Training>),
    /// There is no room for it at the moment.
    Full(Status),
}

/// All runs and how each stands.
#[derive(Debug)]
pub(super) struct Runs {
    runs: Vec<(Run, State)>,
    is_resumed: bool,
    /// Most runs that are started and have not ended.
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

    /// The names of those that were started and have not ended, in the order of the queue.
    pub(super) fn started(&self) -> impl Iterator<Item = &str> {
        let is_started = |state: &State| matches!(state, State::Started);
        self.runs
            .iter()
            .filter(move |(_, state)| is_started(state))
            .map(|(run, _)| run.name.as_str())
    }

    /// Those that have ended.
    pub(super) fn ended(&self) -> impl Iterator<Item = (&Run, &Training)> {
        self.runs.iter().filter_map(|(run, state)| match state {
            State::Ended(training) => Some((run, training.as_ref())),
            State::Planned | State::Started => None,
        })
    }

    /// Starts and follows until all have ended. What was started goes on when this is dropped.
    ///
    /// # Errors
    /// What the server refuses, but for a full queue, which is waited for; a server that is gone for too long.
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
            // The queue is full of others' trainings.
            if refusals == 0 {
                let reason = status.message();
                context.output.note(&format!("{reason}; waiting for room."));
            }
            refusals += 1;
            let pause = context.patience.pause(refusals, retry_delay(&status));
            tokio::time::sleep(pause).await;
        }
    }

    /// Whether the server has the training of any run.
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

    /// Starts as many as may be started; returns why the server did not take the next one.
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

    /// Shows what happens to a run until it ends.
    async fn follow(
        &self,
        index: usize,
        client: &Client,
        context: &mut Context,
    ) -> Result<Training, Error> {
        let (run, _) = &self.runs[index];
        let count = self.runs.len();
        let label = format!("[{}/{count}] {}", index + 1, described(&run.fields));
        let stream = StreamEpochMetricsRequest {
            name: run.name.clone(),
            progress: context.output.can_draw(),
            ..StreamEpochMetricsRequest::default()
        };
        let mut follow = Follow::new(client.clone(), context.patience, stream);
        let mut is_lost = false;
        loop {
            let event = match follow.next().await? {
                Step::Event(event) => event,
                Step::Lost(cause) => {
                    if !std::mem::replace(&mut is_lost, true) {
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
        training.ok_or_else(|| Error::Contract(format!("{} is gone after it has ended", run.name)))
    }
}

/// Puts a run into the queue. The request id makes a repeated call harmless.
async fn start(run: &Run, client: &Client, context: &Context) -> Result<Start, Error> {
    client
        .repeat(&context.patience, || {
            let call = request_within(run.request.clone(), START_TIMEOUT);
            let mut trainings = client.trainings();
            async move {
                match trainings.start_training(call).await {
                    Ok(_) => Ok(Response::new(Start::Started)),
                    Err(status) if status.code() == Code::ResourceExhausted => {
                        Ok(Response::new(Start::Full(status)))
                    }
                    Err(status) => Err(status),
                }
            }
        })
        .await
}

/// A run that an earlier call of the program has started.
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
            "{} exists and is not this sweep's run with {}; resume with the same --grid, --random, --range and --seed",
            run.name,
            described(&run.fields)
        )));
    }
    Ok(Some(match is_final(training.state()) {
        true => Start::Ended(Box::new(training)),
        false => Start::Started,
    }))
}

/// The training of this name; `None` when there is none.
async fn find(name: &str, client: &Client, context: &Context) -> Result<Option<Training>, Error> {
    client
        .repeat(&context.patience, || {
            let call = request(GetTrainingRequest {
                name: name.to_owned(),
            });
            let mut trainings = client.trainings();
            async move {
                match trainings.get_training(call).await {
                    Ok(response) => Ok(Response::new(response.into_inner().training)),
                    Err(status) if status.code() == Code::NotFound => Ok(Response::new(None)),
                    Err(status) => Err(status),
                }
            }
        })
        .await
}
