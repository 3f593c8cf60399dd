//! Prints the events of a stream until the training ends, the latest event is reached, or Ctrl-C;
//! shared by `train` and `watch`.

use std::{mem, pin::pin};

use crate::{
    cli::{
        args::short_names,
        client::{ALL_TRAININGS, Client, EventStream, Step, is_final, request, resume_command},
        context::{Context, Outcome},
        error::Error,
        output::json,
        report,
    },
    proto::v1::{
        GetTrainingRequest, SpecChangeReason, StreamEpochMetricsRequest, Training, TrainingEvent,
        TrainingState, training_event::Kind,
    },
};

/// Follows the stream and prints the final state. `interrupt` resolves when the user leaves.
pub(crate) async fn follow(
    context: &mut Context,
    client: Client,
    mut stream: StreamEpochMetricsRequest,
    interrupt: impl Future<Output = ()>,
) -> Result<Outcome, Error> {
    stream.progress = context.output.can_draw();
    let name = stream.name.clone();
    let mut events = EventStream::new(client.clone(), context.retry, stream);
    let mut view = View {
        context,
        shows_all: name == ALL_TRAININGS,
        is_lost: false,
        promoted: None,
    };
    let mut interrupt = pin!(interrupt);
    loop {
        let step = tokio::select! {
            step = events.next() => step?,
            () = &mut interrupt => {
                view.leave(events.cursor());
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
    let get = async || {
        let request = request(GetTrainingRequest { name: name.clone() });
        client.trainings().get_training(request).await
    };
    let training = client
        .repeat(&view.context.retry, get)
        .await?
        .training
        .ok_or_else(|| Error::Contract(format!("GetTraining returned no {name}")))?;
    view.conclude(&training)
}

struct View<'a> {
    context: &'a mut Context,
    shows_all: bool,
    is_lost: bool,
    /// True if the model version was promoted; `None` before its event was received.
    promoted: Option<bool>,
}

impl View<'_> {
    fn show(&mut self, event: &TrainingEvent) -> Result<(), Error> {
        if mem::take(&mut self.is_lost) {
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
                if is_final(change.state()) {
                    // Its last share would remain beside the final state.
                    self.context.output.clear();
                }
                let state = report::state_name(change.state());
                let failure = change.failure.as_ref();
                let cause = failure.filter(|_| !is_final(change.state()));
                let cause = cause.map(|failure| format!(": {}", failure.message));
                self.context.output.note(&format!(
                    "{} is {state}{}",
                    event.training,
                    cause.unwrap_or_default()
                ));
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
            Kind::InitialValidated(initial) => {
                let line = self.labelled(event, report::initial_line(initial));
                self.context.output.line(&line)?;
            }
            Kind::MetricsRewound(rewound) => {
                let sentence = format!(
                    "The training resumes from its last full checkpoint, in epoch {}.",
                    rewound.from_epoch
                );
                self.context.output.line(&self.labelled(event, sentence))?;
            }
            Kind::SpecChanged(changed) => {
                for change in &changed.changes {
                    let reason = match changed.reason() {
                        SpecChangeReason::OutOfMemory => ", because memory was insufficient",
                        SpecChangeReason::Requested | SpecChangeReason::Unspecified => "",
                    };
                    let sentence = format!(
                        "{} changed from {} to {}{reason}",
                        change.field, change.before, change.after
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
                let sentence = format!("created {}", created.model_version);
                self.context.output.line(&self.labelled(event, sentence))?;
            }
            // Part of the summary at the end.
            Kind::CheckpointSaved(_)
            | Kind::TestEvaluated(_)
            | Kind::ModelVersionCreated(_)
            | Kind::Progress(_)
            | Kind::Heartbeat(_) => {}
        }
        Ok(())
    }

    /// Starts the line with the training's name if the stream has several trainings.
    fn labelled(&self, event: &TrainingEvent, line: String) -> String {
        match self.shows_all {
            true => format!("{}: {line}", event.training),
            false => line,
        }
    }

    fn lost(&mut self, cause: &str) {
        if !mem::replace(&mut self.is_lost, true) {
            self.context.output.note(&report::lost_sentence(cause));
        }
    }

    fn leave(&self, cursor: &StreamEpochMetricsRequest) {
        self.context.output.clear();
        let resume = resume_command(cursor);
        let sentence = match self.shows_all {
            true => format!("No longer following. Watch again with `{resume}`"),
            false => format!(
                "No longer following; the training continues. Watch it again with `{resume}`, \
                 stop it with `visage trainings stop {}`",
                short_names::training_id(&cursor.name)
            ),
        };
        self.context.output.warn(&format!("{sentence}."));
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
        if self.promoted == Some(true)
            && let Some(warning) = worse_warning(training)
        {
            output.warn(&warning);
            return Ok(outcome);
        }
        if let Some(hint) = self.hint(training) {
            output.note(&hint);
        }
        Ok(outcome)
    }

    /// The next command for the user.
    fn hint(&self, training: &Training) -> Option<String> {
        let id = short_names::training_id(&training.name);
        match training.state() {
            TrainingState::Succeeded if training.model_version.is_empty() => Some(format!(
                "No model version was created; `visage models register {id}` creates one from the best checkpoint."
            )),
            TrainingState::Succeeded => {
                let version = short_names::version_id(&training.model_version);
                Some(match self.promoted {
                    Some(true) => "It is live. Try it with `visage predict FILE.jpg`.".to_owned(),
                    Some(false) => format!(
                        "The live version is unchanged; try this one with \
                         `visage predict FILE.jpg --version {version}`, promote it with \
                         `visage models promote {version}`."
                    ),
                    None => format!("Try it with `visage predict FILE.jpg --version {version}`."),
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

/// Warning that the live version has no lower error than the weights that its training started
/// from, with the way back to the version that was live before.
fn worse_warning(training: &Training) -> Option<String> {
    if !report::is_not_better(training)? {
        return None;
    }
    let replaced = training
        .promotion
        .as_ref()
        .map(|promotion| short_names::version_id(&promotion.live_version))
        .filter(|replaced| !replaced.is_empty());
    let remedy = match replaced {
        Some(replaced) => {
            format!("; `visage models rollback` makes version {replaced} live again")
        }
        None => String::new(),
    };
    Some(format!(
        "warning: version {} is live, although its error is not lower than that of its initial \
         weights{remedy}.",
        short_names::version_id(&training.model_version)
    ))
}

/// A training that has not ended, seen with `--no-follow`, is not a failure.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::v1::{EpochMetrics, Promotion};

    #[test]
    fn a_promoted_version_that_is_worse_is_a_warning_with_the_way_back() {
        let validated = |val_mae: f64| {
            Some(EpochMetrics {
                val_mae,
                ..EpochMetrics::default()
            })
        };
        let mut training = Training {
            initial: validated(3.63),
            best: validated(4.72),
            model_version: "models/age/versions/2".to_owned(),
            promotion: Some(Promotion {
                promoted: true,
                live_version: "models/age/versions/1".to_owned(),
                ..Promotion::default()
            }),
            ..Training::default()
        };
        assert_eq!(
            worse_warning(&training).unwrap(),
            "warning: version 2 is live, although its error is not lower than that of its initial \
             weights; `visage models rollback` makes version 1 live again."
        );
        // The first version of a model has no way back.
        training.promotion = Some(Promotion::default());
        let warning = worse_warning(&training).unwrap();
        assert!(!warning.contains("rollback"), "{warning}");
        training.best = validated(3.62);
        assert_eq!(worse_warning(&training), None);
        training.initial = None;
        assert_eq!(worse_warning(&training), None);
    }
}
