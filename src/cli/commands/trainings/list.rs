//! Tables of trainings and of checkpoints.

use std::collections::BTreeMap;

use crate::{
    cli::{
        args::{short_names, watch_flag::Snapshot},
        client::{Client, pages, request},
        commands::trainings::args::ListArgs,
        context::{Context, Outcome},
        error::Error,
        output::{
            json, table,
            text::{size_text, time_text},
        },
        report::{self, validation_sets},
    },
    proto::v1::{Checkpoint, ListCheckpointsRequest, ListTrainingsRequest, Training},
};

/// Position of the marks in the table of trainings, before the losses.
const MARK_COLUMN: usize = 3;

pub(super) async fn trainings(
    args: &ListArgs,
    client: &Client,
    context: &Context,
) -> Result<Snapshot, Error> {
    let states: Vec<i32> = args.states.iter().map(|&state| state.into()).collect();
    let labels: BTreeMap<String, String> = args.labels.iter().cloned().collect();
    let found = pages(args.limit, async |page_size, page_token| {
        let message = ListTrainingsRequest {
            page_size,
            page_token,
            states: states.clone(),
            labels: labels.clone(),
        };
        let response = client.trainings().list_trainings(request(message)).await;
        let page = client.message(response)?;
        Ok((page.trainings, page.next_page_token))
    })
    .await?;
    if context.output.is_json() {
        let objects = found.iter().map(|found| json::value("Training", found));
        let lines = objects.map(|object| object.to_string());
        return Ok(Snapshot::changing(lines.collect()));
    }
    if found.is_empty() {
        context
            .output
            .note(match states.is_empty() && labels.is_empty() {
                true => "No trainings. Start one with `visage train DIRECTORY`.",
                false => "No trainings with these states and labels.",
            });
        return Ok(Snapshot::changing(Vec::new()));
    }
    let marks = validation_sets::marks(found.iter().map(val_digest));
    let header = vec![
        "ID", "STATE", "EPOCH", "VAL LOSS", "MAE", "VERSION", "DISK", "CREATED", "NAME",
    ];
    let rows = found.iter().map(training_row).collect();
    let mut lines = validation_sets::table_lines(header, rows, MARK_COLUMN, marks);
    lines.extend(disk_legend(&found).map(str::to_owned));
    Ok(Snapshot::changing(lines))
}

/// Explains why a training with a version occupies no disk space.
fn disk_legend(found: &[Training]) -> Option<&'static str> {
    let is_kept_by_version =
        |found: &Training| found.checkpoint_bytes == 0 && !found.model_version.is_empty();
    found.iter().any(is_kept_by_version).then_some(
        "DISK: checkpoints that `visage trainings delete` removes; files of a model version are not among them.",
    )
}

fn val_digest(training: &Training) -> &str {
    let dataset = training.dataset.as_ref();
    dataset.map_or("", |dataset| dataset.val_digest.as_str())
}

fn training_row(training: &Training) -> Vec<String> {
    let best = training.best.as_ref();
    vec![
        short_names::training_id(&training.name).to_owned(),
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
        short_names::version_id(&training.model_version).to_owned(),
        size_text(training.checkpoint_bytes),
        time_text(training.create_time),
        training.display_name.clone(),
    ]
}

pub(super) async fn checkpoints(
    id: &str,
    limit: usize,
    client: &Client,
    context: &Context,
) -> Result<Outcome, Error> {
    let parent = short_names::training(id);
    let found = pages(limit, async |page_size, page_token| {
        let message = ListCheckpointsRequest {
            parent: parent.clone(),
            page_size,
            page_token,
        };
        let response = client.trainings().list_checkpoints(request(message)).await;
        let page = client.message(response)?;
        Ok((page.checkpoints, page.next_page_token))
    })
    .await?;
    let output = &context.output;
    if output.is_json() {
        for checkpoint in &found {
            output.object(&json::value("Checkpoint", checkpoint))?;
        }
        return Ok(Outcome::Done);
    }
    let rows: Vec<Vec<String>> = found.iter().map(checkpoint_row).collect();
    let header = ["EPOCH", "VAL LOSS", "MAE", "SIZE", "BEST", "NAME"];
    table::print(output, &header, &rows)?;
    Ok(Outcome::Done)
}

fn checkpoint_row(checkpoint: &Checkpoint) -> Vec<String> {
    let bytes: u64 = checkpoint.files.iter().map(|file| file.size_bytes).sum();
    let best = if checkpoint.best { "best" } else { "" };
    vec![
        checkpoint.epoch.to_string(),
        format!("{:.4}", checkpoint.val_loss),
        format!("{:.2}", checkpoint.val_mae),
        size_text(bytes),
        best.to_owned(),
        checkpoint.name.clone(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_training_whose_version_has_its_files_explains_its_disk_space() {
        let mut training = Training {
            checkpoint_bytes: 0,
            ..Training::default()
        };
        assert_eq!(training_row(&training)[6], "0 B");
        assert_eq!(disk_legend(std::slice::from_ref(&training)), None);
        training.model_version = "models/age/versions/3".to_owned();
        let legend = disk_legend(&[training]).unwrap();
        assert!(legend.contains("files of a model version"), "{legend}");
    }
}
