//! Shows a stream of events until the training ends, the head is reached or Ctrl-C: what `train` and `watch` have in common.

use std::pin::pin;

use crate::proto::v1::{
    GetTrainingRequest, SpecChangeReason, StreamEpochMetricsRequest, Training, TrainingEvent,
    TrainingState, training_event::Kind,
};

use super::{
    Context, Error, Outcome,
    client::{Client, request},
    follow::{ALL, Follow, Step, resume_command},
    json, names, report,
};

/// Follows, prints, and tells how the training ended. `interrupt` resolves when the user wants to leave.
pub(super) async fn observe(
    context: &mut Context,
    client: Client,
    mut stream: StreamEpochMetricsRequest,
    interrupt: impl Future<Output = ()>,
) -> Result<Outcome, Error> {
    stream.progress = context.output.can_draw();
    let name = stream.name.clone();
    let mut follow = Follow::new(client.clone(), context.patience, stream);
    let mut view = View {
        context,
        shows_all: name == ALL,
        is_lost: false,
        promoted: None,
    };
    let mut interrupt = pin!(interrupt);
    loop {
        let step = tokio::select! {
            step = follow.next() => step?,
            () = &mut interrupt => {
                view.leave(follow.cursor());
                return Ok(Outcome::Interrupted);
            }
        };
        match step {
            Step::Event(event) => view.show(&event)?,
            Step::Lost(cause) => view.lost(&cause),
            Step::End => break,
        }
    }
    view.context.output.clear();
    if view.shows_all {
        return Ok(Outcome::Done);
    }
    let patience = view.context.patience;
    let training = client
        .repeat(&patience, || {
            let call = request(GetTrainingRequest { name: name.clone() });
            let mut trainings = client.trainings();
            async move { trainings.get_training(call).await }
        })
        .await?
        .training
        .ok_or_else(|| Error::Contract(format!("{name} came back empty")))?;
    view.conclude(&training)
}

struct View<'a> {
    context: &'a mut Context,
    shows_all: bool,
    is_lost: bool,
    /// Whether the model version became `live`, if its event was seen.
    promoted: Option<bool>,
}

impl View<'_> {
    fn show(&mut self, event: &TrainingEvent) -> Result<(), Error> {
        if std::mem::take(&mut self.is_lost) {
            self.context.output.note("Connected again.");
        }
        let Some(kind) = &event.kind else {
            // A kind from a newer server.
            return Ok(());
        };
        if let Kind::ModelVersionCreated(created) = kind {
            self.promoted = Some(created.promoted);
        }
        if self.context.output.is_json() {
            let is_stored = event.sequence > 0;
            return match is_stored {
                true => self
                    .context
                    .output
                    .object(&json::value("TrainingEvent", event)),
                false => Ok(()),
            };
        }
        match kind {
            Kind::StateChanged(change) => {
                let state = report::state_name(change.state());
                self.context
                    .output
                    .note(&format!("{} is {state}", event.training));
            }
            Kind::DatasetScanned(dataset) => {
                for line in report::dataset_lines(dataset) {
                    self.context.output.note(&self.labelled(event, line));
                }
            }
            Kind::EpochCompleted(metrics) => {
                let line = self.labelled(event, report::epoch_line(metrics));
                self.context.output.line(&line)?;
            }
            Kind::MetricsRewound(rewound) => {
                let sentence = format!(
                    "The training goes on from its last full checkpoint, in epoch {}.",
                    rewound.from_epoch
                );
                self.context.output.line(&self.labelled(event, sentence))?;
            }
            Kind::SpecChanged(changed) => {
                for change in &changed.changes {
                    let sentence = format!(
                        "{} is {} now instead of {}{}",
                        change.field,
                        change.after,
                        change.before,
                        match changed.reason() {
                            SpecChangeReason::OutOfMemory => ", because there is too little memory",
                            SpecChangeReason::Requested | SpecChangeReason::Unspecified => "",
                        }
                    );
                    self.context.output.note(&self.labelled(event, sentence));
                }
            }
            Kind::Progress(progress) if !self.shows_all => {
                self.context
                    .output
                    .draw(progress.fraction, report::progress_text(progress));
            }
            Kind::ModelVersionCreated(created) if self.shows_all => {
                let sentence = format!("made {}", created.model_version);
                self.context.output.line(&self.labelled(event, sentence))?;
            }
            // The summary at the end says them better.
            Kind::CheckpointSaved(_)
            | Kind::TestEvaluated(_)
            | Kind::ModelVersionCreated(_)
            | Kind::Progress(_)
            | Kind::Heartbeat(_) => {}
        }
        Ok(())
    }

    /// With several trainings in one stream each line says which it is about.
    fn labelled(&self, event: &TrainingEvent, line: String) -> String {
        match self.shows_all {
            true => format!("{}: {line}", event.training),
            false => line,
        }
    }

    fn lost(&mut self, cause: &str) {
        if !std::mem::replace(&mut self.is_lost, true) {
            self.context.output.note(&report::lost_sentence(cause));
        }
    }

    fn leave(&self, cursor: &StreamEpochMetricsRequest) {
        self.context.output.clear();
        let mut sentence = format!(
            "No longer following. Watch again with `{}`",
            resume_command(cursor)
        );
        if !self.shows_all {
            let id = names::training_id(&cursor.name);
            sentence = format!(
                "No longer following; the training goes on. Watch it again with `{}`, end it with `visage trainings stop {id}`",
                resume_command(cursor)
            );
        }
        self.context.output.complain(&format!("{sentence}."));
    }

    fn conclude(&self, training: &Training) -> Result<Outcome, Error> {
        let output = &self.context.output;
        let outcome = outcome(training.state());
        if output.is_json() {
            output.object(&json::value("Training", training))?;
            return Ok(outcome);
        }
        for line in report::summary_lines(training) {
            output.line(&line)?;
        }
        if let Some(hint) = self.hint(training) {
            output.note(&hint);
        }
        Ok(outcome)
    }

    /// What to type next.
    fn hint(&self, training: &Training) -> Option<String> {
        let id = names::training_id(&training.name);
        match training.state() {
            TrainingState::Succeeded => {
                let version = names::version_id(&training.model_version);
                Some(match self.promoted {
                    Some(true) => "It is live. Try it with `visage predict FILE.jpg`.".to_owned(),
                    Some(false) => format!(
                        "The version that serves stays; try this one with `visage predict FILE.jpg --model {version}`, make it live \
                         with `visage models alias set live {version}`."
                    ),
                    None => format!("Try it with `visage predict FILE.jpg --model {version}`."),
                })
            }
            TrainingState::Failed => {
                Some(format!("All details: `visage --json trainings get {id}`."))
            }
            TrainingState::Cancelled => None,
            TrainingState::Unspecified
            | TrainingState::Queued
            | TrainingState::Preparing
            | TrainingState::Running
            | TrainingState::Pausing
            | TrainingState::Paused
            | TrainingState::Stopping
            | TrainingState::Cancelling => Some(format!("Follow it with `visage watch {id}`.")),
        }
    }
}

/// A training that has not ended yet, seen with `--no-follow`, is no failure.
fn outcome(state: TrainingState) -> Outcome {
    match state {
        TrainingState::Failed | TrainingState::Cancelled => Outcome::Failed,
        TrainingState::Unspecified
        | TrainingState::Queued
        | TrainingState::Preparing
        | TrainingState::Running
        | TrainingState::Pausing
        | TrainingState::Paused
        | TrainingState::Stopping
        | TrainingState::Cancelling
        | TrainingState::Succeeded => Outcome::Done,
    }
}

/// Resolves at Ctrl-C; never where the signal cannot be watched.
pub(super) async fn ctrl_c() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}
