//! Starts or resumes a sweep, waits for its runs and prints their results.

use std::pin::pin;

use tonic::Status;
use uuid::Uuid;

use crate::{
    cli::{
        args::{short_names, watch_flag::ctrl_c},
        commands::sweep::{Args, request::plan_runs, runs::Runs, table, version},
        context::{Context, Outcome},
        error::Error,
    },
    proto::v1::TrainingState,
};

pub(crate) async fn run(args: Args, context: &mut Context) -> Result<Outcome, Error> {
    let is_resumed = args.resume.is_some();
    let id = match args.resume.clone().or_else(|| args.id.clone()) {
        Some(id) => id,
        None => format!("sweep-{:08x}", Uuid::new_v4().as_fields().0),
    };
    let queued = args.queued as usize;
    let planned = plan_runs(args, &id)?;
    let client = context.connect().await?;
    let count = planned.len();
    let mut runs = Runs::new(planned, is_resumed, queued);
    if is_resumed && !runs.any_exists(&client, context).await? {
        return Err(Error::Refused(Box::new(Status::not_found(format!(
            "sweep {id:?} does not exist: none of trainings/{id}-1 to trainings/{id}-{count} was found; start it with --id {id}"
        )))));
    }
    context.output.note(&format!(
        "Sweep {id}: {count} runs, trainings/{id}-1 to trainings/{id}-{count}. If it is interrupted, continue it with the same command and `--resume {id}`."
    ));
    let is_interrupted = {
        let mut work = pin!(runs.finish(&client, context));
        tokio::select! {
            done = &mut work => {
                done?;
                false
            }
            () = ctrl_c() => true,
        }
    };
    context.output.clear();
    if is_interrupted {
        context.output.warn(&interrupted_message(&runs, &id));
        return Ok(Outcome::Interrupted);
    }
    let mut ended: Vec<_> = runs.ended().collect();
    table::sort(&mut ended);
    table::print(&ended, &id, context)?;
    if let Some(best) = table::best(&ended) {
        let version = version::of_best(best, &client, context).await?;
        let number = short_names::version_id(&version);
        context.output.note(&format!(
            "The best run, {}, is version {number}; serve it with `visage models promote {number}`.",
            short_names::training_id(&best.name)
        ));
    }
    let has_failures = ended
        .iter()
        .any(|(_, training)| training.state() != TrainingState::Succeeded);
    Ok(match has_failures {
        true => Outcome::Failed,
        false => Outcome::Done,
    })
}

/// The runs that continue after Ctrl-C.
fn interrupted_message(runs: &Runs, id: &str) -> String {
    let started: Vec<&str> = runs.started().collect();
    let how = format!("Continue with the same command and `--resume {id}`.");
    match started.as_slice() {
        [] => format!("No run is queued or running. {how}"),
        [running] => format!(
            "No longer following; {running} continues. {how} Stop it with `visage trainings stop {}`.",
            short_names::training_id(running)
        ),
        [running, queued @ ..] => format!(
            "No longer following; {running} continues, and {} remain queued. {how} Cancel one with `visage trainings cancel ID`.",
            queued.join(", ")
        ),
    }
}
