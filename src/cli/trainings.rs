//! `visage trainings`: everything about trainings but starting and following them.

use crate::proto::v1::{
    CancelTrainingRequest, DeleteTrainingRequest, GetTrainingRequest, ListCheckpointsRequest,
    ListTrainingsRequest, PauseTrainingRequest, ResumeTrainingRequest, StopTrainingRequest,
    Training, TrainingState, UpdateTrainingRequest,
};

use super::{
    Context, Error, Outcome,
    again::{self, Again, Shown},
    client::{Client, pages, request},
    download, follow, json, names, report, table,
};

const EXAMPLES: &str = "\
Examples:
  visage trainings list --state running --state queued
  visage trainings list --watch            again every 2 seconds, until Ctrl-C
  visage trainings get faces-2
  visage trainings get faces-2 --watch=10s until it has ended
  visage trainings stop faces-2            end early, keep the best checkpoint
  visage trainings pause faces-2           let go of the device; `resume` goes on
  visage trainings resume faces-2          back into the queue
  visage trainings update faces-2 --epochs 20
  visage trainings cancel faces-2 --force  give it up, kill its process
  visage trainings delete faces-2          with its events and unused checkpoints
  visage trainings checkpoints faces-2
  visage trainings download faces-2 --output resnet18.safetensors";

#[derive(Debug, clap::Subcommand)]
#[command(after_help = EXAMPLES)]
pub(super) enum Command {
    /// List trainings, newest first
    List(ListArgs),
    /// Show one training
    Get {
        /// `ID` or `trainings/ID`
        id: String,
        #[command(flatten)]
        again: Again,
    },
    /// End a training early and keep its best checkpoint
    Stop {
        /// `ID` or `trainings/ID`
        id: String,
    },
    /// Let a training keep all it has and let go of the device
    Pause {
        /// `ID` or `trainings/ID`
        id: String,
    },
    /// Put a paused training back into the queue
    Resume {
        /// `ID` or `trainings/ID`
        id: String,
    },
    /// Change a training from its next epoch on
    Update {
        /// `ID` or `trainings/ID`
        id: String,
        /// Passes over the training images
        #[arg(long, value_name = "N")]
        epochs: Option<u32>,
        /// Epochs without an improvement after which to stop; 0 never stops early
        #[arg(long, value_name = "N")]
        patience: Option<u32>,
        /// Step size
        #[arg(long, value_name = "X")]
        lr: Option<f64>,
    },
    /// Give a training up
    Cancel {
        /// `ID` or `trainings/ID`
        id: String,
        /// Kill its process instead of asking it
        #[arg(long)]
        force: bool,
    },
    /// Delete an ended training with its events and unused checkpoints
    Delete {
        /// `ID` or `trainings/ID`
        id: String,
    },
    /// List the checkpoints of a training, newest first
    Checkpoints {
        /// `ID` or `trainings/ID`
        id: String,
        /// Most checkpoints to list
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: usize,
    },
    /// Download a file of a checkpoint and verify it
    Download(download::Args),
}

#[derive(Debug, clap::Args)]
pub(super) struct ListArgs {
    /// Most trainings to list
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: usize,
    /// Only trainings in this state, such as `running`; may be given several times
    #[arg(long = "state", value_name = "STATE", value_parser = parse_state)]
    states: Vec<TrainingState>,
    #[command(flatten)]
    again: Again,
}

pub(super) async fn run(command: Command, context: &mut Context) -> Result<Outcome, Error> {
    let client = context.connect().await?;
    let mut trainings = client.trainings();
    match command {
        Command::List(args) => {
            let context = &*context;
            return again::show(&args.again, context, || list(&args, &client, context)).await;
        }
        Command::Checkpoints { id, limit } => return checkpoints(&id, limit, context).await,
        Command::Download(args) => return download::run(args, &client, context).await,
        Command::Get { id, again } => {
            let (name, context) = (names::training(&id), &*context);
            return again::show(&again, context, || get(&name, &client, context)).await;
        }
        Command::Stop { id } => {
            let name = names::training(&id);
            let answer = trainings
                .stop_training(request(StopTrainingRequest { name }))
                .await;
            show(client.answer(answer)?.training, context)?;
        }
        Command::Pause { id } => {
            let name = names::training(&id);
            let answer = trainings
                .pause_training(request(PauseTrainingRequest { name }))
                .await;
            show(client.answer(answer)?.training, context)?;
        }
        Command::Resume { id } => {
            let name = names::training(&id);
            let answer = trainings
                .resume_training(request(ResumeTrainingRequest { name }))
                .await;
            show(client.answer(answer)?.training, context)?;
        }
        Command::Update {
            id,
            epochs,
            patience,
            lr,
        } => {
            let message = UpdateTrainingRequest {
                name: names::training(&id),
                max_epochs: epochs,
                patience,
                learning_rate: lr,
            };
            let answer = trainings.update_training(request(message)).await;
            show(client.answer(answer)?.training, context)?;
        }
        Command::Cancel { id, force } => {
            let name = names::training(&id);
            let answer = trainings
                .cancel_training(request(CancelTrainingRequest { name, force }))
                .await;
            show(client.answer(answer)?.training, context)?;
        }
        Command::Delete { id } => {
            let name = names::training(&id);
            let message = DeleteTrainingRequest { name: name.clone() };
            client.answer(trainings.delete_training(request(message)).await)?;
            context.output.note(&format!("Deleted {name}."));
        }
    }
    Ok(Outcome::Done)
}

async fn get(name: &str, client: &Client, context: &Context) -> Result<Shown, Error> {
    let message = GetTrainingRequest {
        name: name.to_owned(),
    };
    let answer = client.trainings().get_training(request(message)).await;
    let training = client.answer(answer)?.training;
    let is_final = training
        .as_ref()
        .is_some_and(|training| follow::is_final(training.state()));
    Ok(Shown {
        lines: lines(training, context)?,
        is_final,
    })
}

async fn list(args: &ListArgs, client: &Client, context: &Context) -> Result<Shown, Error> {
    let states: Vec<i32> = args.states.iter().map(|&state| state.into()).collect();
    let found = pages(args.limit, |page_size, page_token| {
        let message = ListTrainingsRequest {
            page_size,
            page_token,
            states: states.clone(),
        };
        let client = client.clone();
        async move {
            let answer = client.trainings().list_trainings(request(message)).await;
            client
                .answer(answer)
                .map(|page| (page.trainings, page.next_page_token))
        }
    })
    .await?;
    if context.output.is_json() {
        let objects = found.iter().map(|found| json::value("Training", found));
        let lines = objects.map(|object| object.to_string());
        return Ok(Shown::changing(lines.collect()));
    }
    if found.is_empty() {
        context.output.note(match states.is_empty() {
            true => "No trainings. Start one with `visage train --dataset DIR`.",
            false => "No trainings in these states.",
        });
        return Ok(Shown::changing(Vec::new()));
    }
    let rows: Vec<Vec<String>> = found.iter().map(row).collect();
    let header = [
        "ID", "STATE", "EPOCH", "VAL LOSS", "MAE", "VERSION", "CREATED", "NAME",
    ];
    Ok(Shown::changing(table::lines(&header, &rows)))
}

fn row(training: &Training) -> Vec<String> {
    let best = training.best.as_ref();
    vec![
        names::training_id(&training.name).to_owned(),
        report::state_name(training.state()).to_owned(),
        training
            .last
            .as_ref()
            .map(|last| format!("{}/{}", last.epoch, last.max_epochs))
            .unwrap_or_default(),
        best.map(|best| format!("{:.4}", best.val_loss))
            .unwrap_or_default(),
        best.map(|best| format!("{:.2}", best.val_mae))
            .unwrap_or_default(),
        names::version_id(&training.model_version).to_owned(),
        table::moment(training.create_time),
        training.display_name.clone(),
    ]
}

fn show(training: Option<Training>, context: &Context) -> Result<(), Error> {
    let lines = lines(training, context)?;
    lines.iter().try_for_each(|line| context.output.line(line))
}

/// A training for people, or as JSON.
fn lines(training: Option<Training>, context: &Context) -> Result<Vec<String>, Error> {
    let training =
        training.ok_or_else(|| Error::Contract("the training came back empty".to_owned()))?;
    if context.output.is_json() {
        return Ok(vec![json::value("Training", &training).to_string()]);
    }
    let mut lines = report::summary_lines(&training);
    if training.queue_position > 0 {
        lines.push(format!("Place in the queue: {}", training.queue_position));
    }
    if let Some(progress) = &training.progress {
        lines.push(format!("Now: {}", report::progress_text(progress)));
    }
    lines.extend(training.dataset.iter().flat_map(report::dataset_lines));
    if !training.init_source.is_empty() {
        lines.push(format!("Initial weights: {}", training.init_source));
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

async fn checkpoints(id: &str, limit: usize, context: &Context) -> Result<Outcome, Error> {
    let client = context.connect().await?;
    let parent = names::training(id);
    let found = pages(limit, |page_size, page_token| {
        let message = ListCheckpointsRequest {
            parent: parent.clone(),
            page_size,
            page_token,
        };
        let client = client.clone();
        async move {
            let answer = client.trainings().list_checkpoints(request(message)).await;
            client
                .answer(answer)
                .map(|page| (page.checkpoints, page.next_page_token))
        }
    })
    .await?;
    if context.output.is_json() {
        for checkpoint in &found {
            context
                .output
                .object(&json::value("Checkpoint", checkpoint))?;
        }
        return Ok(Outcome::Done);
    }
    let rows: Vec<Vec<String>> = found
        .iter()
        .map(|checkpoint| {
            let bytes: u64 = checkpoint.files.iter().map(|file| file.size_bytes).sum();
            let best = if checkpoint.best { "best" } else { "" };
            vec![
                checkpoint.epoch.to_string(),
                format!("{:.4}", checkpoint.val_loss),
                format!("{:.2}", checkpoint.val_mae),
                report::size_text(bytes),
                best.to_owned(),
                checkpoint.name.clone(),
            ]
        })
        .collect();
    table::print(
        &context.output,
        &["EPOCH", "VAL LOSS", "MAE", "SIZE", "BEST", "NAME"],
        &rows,
    )?;
    Ok(Outcome::Done)
}

fn parse_state(text: &str) -> Result<TrainingState, String> {
    let name = format!("TRAINING_STATE_{}", text.to_ascii_uppercase());
    match TrainingState::from_str_name(&name) {
        Some(state) if state != TrainingState::Unspecified => Ok(state),
        _ => Err("expected queued, preparing, running, pausing, paused, stopping, cancelling, succeeded, failed or cancelled".to_owned()),
    }
}
