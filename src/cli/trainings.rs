//! `visage trainings`: everything about trainings but starting and following them.

use crate::proto::v1::{
    CancelTrainingRequest, DeleteTrainingRequest, GetTrainingRequest, ListCheckpointsRequest,
    ListTrainingsRequest, PauseTrainingRequest, ResumeTrainingRequest, StopTrainingRequest,
    Training, TrainingState, UpdateTrainingRequest,
};

use super::{
    Context, Error, Outcome,
    client::{pages, request},
    download, json, names, report, table,
};

const EXAMPLES: &str = "\
Examples:
  visage trainings list --state running --state queued
  visage trainings get faces-2
  visage trainings stop faces-2            end early, keep the best checkpoint
  visage trainings pause faces-2           let go of the device; `resume` goes on
  visage trainings update faces-2 --epochs 20
  visage trainings cancel faces-2 --force  give it up, kill its process
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
}

pub(super) async fn run(command: Command, context: &mut Context) -> Result<Outcome, Error> {
    let client = context.connect().await?;
    let mut trainings = client.trainings();
    match command {
        Command::List(args) => return list(args, context).await,
        Command::Checkpoints { id, limit } => return checkpoints(&id, limit, context).await,
        Command::Download(args) => return download::run(args, &client, context).await,
        Command::Get { id } => {
            let name = names::training(&id);
            let answer = trainings
                .get_training(request(GetTrainingRequest { name }))
                .await;
            show(client.answer(answer)?.training, context)?;
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

async fn list(args: ListArgs, context: &Context) -> Result<Outcome, Error> {
    let client = context.connect().await?;
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
        for training in &found {
            context.output.object(&json::value("Training", training))?;
        }
        return Ok(Outcome::Done);
    }
    if found.is_empty() {
        context
            .output
            .note("No trainings. Start one with `visage train --dataset DIR`.");
        return Ok(Outcome::Done);
    }
    let rows: Vec<Vec<String>> = found.iter().map(row).collect();
    let header = [
        "ID", "STATE", "EPOCH", "VAL LOSS", "MAE", "VERSION", "CREATED", "NAME",
    ];
    table::print(&context.output, &header, &rows)?;
    Ok(Outcome::Done)
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
        training
            .create_time
            .map(|time| time.to_string())
            .unwrap_or_default(),
        training.display_name.clone(),
    ]
}

fn show(training: Option<Training>, context: &Context) -> Result<(), Error> {
    let training =
        training.ok_or_else(|| Error::Contract("the training came back empty".to_owned()))?;
    if context.output.is_json() {
        return context.output.object(&json::value("Training", &training));
    }
    for line in report::summary_lines(&training) {
        context.output.line(&line)?;
    }
    if training.queue_position > 0 {
        context
            .output
            .line(&format!("Place in the queue: {}", training.queue_position))?;
    }
    if let Some(progress) = &training.progress {
        context
            .output
            .line(&format!("Now: {}", report::progress_text(progress)))?;
    }
    for line in training.dataset.iter().flat_map(report::dataset_lines) {
        context.output.line(&line)?;
    }
    if !training.init_source.is_empty() {
        context
            .output
            .line(&format!("Initial weights: {}", training.init_source))?;
    }
    let mut labels: Vec<String> = training
        .labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    labels.sort();
    if !labels.is_empty() {
        context
            .output
            .line(&format!("Labels: {}", labels.join(", ")))?;
    }
    Ok(())
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
        _ => Err("expected queued, preparing, running, stopping, cancelling, succeeded, failed or cancelled".to_owned()),
    }
}
