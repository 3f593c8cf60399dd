//! Runs the subcommands of `visage trainings`.

use crate::{
    cli::{
        args::{
            short_names,
            watch_flag::{self, Snapshot},
        },
        client::{Client, is_final, request},
        commands::trainings::{Command, compare, download, list},
        context::{Context, Outcome},
        error::Error,
        output::{json, text::size_text},
        report::{self, settings},
    },
    proto::v1::{
        CancelTrainingRequest, DeleteTrainingRequest, GetTrainingRequest, PauseTrainingRequest,
        ResumeTrainingRequest, StopTrainingRequest, Training, UpdateTrainingRequest,
    },
};

pub(crate) async fn run(command: Command, context: &mut Context) -> Result<Outcome, Error> {
    if let Command::Compare { trainings } = &command
        && let [only] = trainings.as_slice()
    {
        return Err(Error::Usage(format!(
            "compare needs two trainings or more; `visage trainings get {only}` shows one, \
             `visage trainings list` lists all"
        )));
    }
    let client = context.connect().await?;
    let mut trainings = client.trainings();
    let changed = match command {
        Command::List(args) => {
            let context = &*context;
            let query = async || list::trainings(&args, &client, context).await;
            return watch_flag::print(&args.watch, context, query).await;
        }
        Command::Checkpoints { training, limit } => {
            return list::checkpoints(&training.id, limit, &client, context).await;
        }
        Command::Download(args) => return download::run(args, &client, context).await,
        Command::Get { training, watch } => {
            let (name, context) = (short_names::training(&training.id), &*context);
            let query = async || get(&name, &client, context).await;
            return watch_flag::print(&watch, context, query).await;
        }
        Command::Compare { trainings } => {
            return compare::run(&trainings, &client, context).await;
        }
        Command::Delete(training) => {
            let name = short_names::training(&training.id);
            delete(name, &client, context).await?;
            return Ok(Outcome::Done);
        }
        Command::Stop(training) => {
            let name = short_names::training(&training.id);
            let message = StopTrainingRequest { name };
            let response = trainings.stop_training(request(message)).await;
            client.message(response)?.training
        }
        Command::Pause(training) => {
            let name = short_names::training(&training.id);
            let message = PauseTrainingRequest { name };
            let response = trainings.pause_training(request(message)).await;
            client.message(response)?.training
        }
        Command::Resume(training) => {
            let name = short_names::training(&training.id);
            let message = ResumeTrainingRequest { name };
            let response = trainings.resume_training(request(message)).await;
            client.message(response)?.training
        }
        Command::Update {
            training,
            epochs,
            patience,
            lr,
        } => {
            let message = UpdateTrainingRequest {
                name: short_names::training(&training.id),
                max_epochs: epochs,
                patience,
                learning_rate: lr,
            };
            let response = trainings.update_training(request(message)).await;
            client.message(response)?.training
        }
        Command::Cancel { training, force } => {
            let name = short_names::training(&training.id);
            let message = CancelTrainingRequest { name, force };
            let response = trainings.cancel_training(request(message)).await;
            client.message(response)?.training
        }
    };
    print_changed(changed, context)?;
    Ok(Outcome::Done)
}

/// The state of a changed training on one line.
fn print_changed(training: Option<Training>, context: &Context) -> Result<(), Error> {
    let training = training.ok_or_else(missing)?;
    let output = &context.output;
    if output.is_json() {
        return output.object(&json::value("Training", &training));
    }
    output.line(&report::state_line(&training))
}

/// A response without its training.
fn missing() -> Error {
    Error::Contract("the response has no training".to_owned())
}

/// Deletes a training and prints the disk space that became free.
async fn delete(name: String, client: &Client, context: &Context) -> Result<(), Error> {
    // The bytes of its checkpoints are not known after the deletion.
    let before = find(&name, client).await?;
    let message = DeleteTrainingRequest { name: name.clone() };
    client.message(client.trainings().delete_training(request(message)).await)?;
    let before = before.unwrap_or_default();
    let freed = size_text(before.checkpoint_bytes);
    let cause = match (before.checkpoint_bytes, before.model_version.as_str()) {
        (0, version) if !version.is_empty() => {
            format!(", because the files belong to {version}")
        }
        _ => String::new(),
    };
    let text = format!("Deleted {name}; {freed} freed{cause}.");
    context.output.note(&text);
    Ok(())
}

pub(super) async fn find(name: &str, client: &Client) -> Result<Option<Training>, Error> {
    let message = GetTrainingRequest {
        name: name.to_owned(),
    };
    let response = client.trainings().get_training(request(message)).await;
    Ok(client.message(response)?.training)
}

async fn get(name: &str, client: &Client, context: &Context) -> Result<Snapshot, Error> {
    let training = find(name, client).await?;
    let is_final = training
        .as_ref()
        .is_some_and(|training| is_final(training.state()));
    Ok(Snapshot {
        lines: lines(training, context)?,
        is_final,
    })
}

/// A training as text or JSON.
fn lines(training: Option<Training>, context: &Context) -> Result<Vec<String>, Error> {
    let training = training.ok_or_else(missing)?;
    if context.output.is_json() {
        return Ok(vec![json::value("Training", &training).to_string()]);
    }
    let mut lines = report::summary_lines(&training);
    if !training.owner.is_empty() {
        lines.push(format!("Owner: {}", training.owner));
    }
    if training.queue_position > 0 {
        lines.push(format!("Queue position: {}", training.queue_position));
    }
    if let Some(progress) = &training.progress {
        lines.push(format!("Now: {}", report::progress_text(progress)));
    }
    if let Some(dataset) = settings::dataset_text(&training) {
        lines.push(format!("Data: {dataset}"));
    }
    lines.extend(training.dataset.iter().flat_map(report::dataset_lines));
    if !training.init_source.is_empty() {
        lines.push(format!("Initial weights: {}", training.init_source));
    }
    let settings = settings::shown(&training);
    if !settings.is_empty() {
        lines.push("Settings:".to_owned());
        let width = settings
            .iter()
            .map(|(name, _)| name.len())
            .max()
            .unwrap_or(0);
        let pairs = settings.iter();
        lines.extend(pairs.map(|(name, value)| format!("  {name:<width$}  {value}")));
    }
    let mut labels: Vec<String> = training
        .labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    labels.sort();
    if !labels.is_empty() {
        lines.push(format!("Labels: {}", labels.join(", ")));
    }
    if !training.trace_parent.is_empty() {
        lines.push(format!("Trace: {}", training.trace_parent));
    }
    Ok(lines)
}
