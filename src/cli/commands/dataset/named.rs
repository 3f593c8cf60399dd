//! `visage dataset register`, `list`, `get` and `delete`: named datasets.

use std::{
    path::{Path, PathBuf},
    pin::pin,
    time::Duration,
};

use crate::{
    cli::{
        args::{dataset_args::ReadingArgs, paths::absolute, short_names, watch_flag::ctrl_c},
        client::{Client, pages, request},
        context::{Context, Outcome},
        error::Error,
        output::{
            json, table,
            text::{size_text, time_text},
        },
        report,
    },
    names,
    proto::v1::{
        Dataset, DatasetKind, DatasetState, DeleteDatasetRequest, GetDatasetRequest,
        ListDatasetsRequest, RegisterDatasetRequest,
    },
};

/// Interval between requests for a dataset that is being unpacked or scanned.
const POLL_INTERVAL: Duration = Duration::from_millis(300);

#[derive(Debug, clap::Args)]
pub(crate) struct RegisterArgs {
    /// Directory of images whose names start with the age, or a CSV/TSV file with the columns
    /// `path` and `age`; on the server's disk, where it remains
    path: PathBuf,
    /// Id of the dataset, such as `faces-2` [default: from the directory's name]
    #[arg(long, alias = "name", value_name = "ID")]
    id: Option<String>,
    /// Display name
    #[arg(long, value_name = "TEXT", default_value = "")]
    display_name: String,
    #[command(flatten)]
    reading: ReadingArgs,
    /// Return immediately, without waiting for the scan of the images
    #[arg(long)]
    detach: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {
    /// Maximum number of datasets
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: usize,
}

pub(crate) async fn register(args: RegisterArgs, context: &mut Context) -> Result<Outcome, Error> {
    let id = match &args.id {
        Some(id) => short_names::dataset_id(id).to_owned(),
        None => id_from(&args.path)?,
    };
    let message = RegisterDatasetRequest {
        dataset_id: id,
        path: absolute(args.path)?,
        display_name: args.display_name,
        columns: args.reading.columns(),
        age_pattern: args.reading.age_pattern.unwrap_or_default(),
    };
    let client = context.connect().await?;
    let registered = client.datasets().register_dataset(request(message)).await;
    let dataset = client.message(registered)?.dataset.ok_or_else(missing)?;
    show_when_done(dataset, args.detach, &client, context).await
}

/// An id from the last component of a path.
fn id_from(path: &Path) -> Result<String, Error> {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let id: String = stem
        .to_lowercase()
        .chars()
        .map(|letter| match letter.is_ascii_alphanumeric() {
            true => letter,
            false => '-',
        })
        .collect();
    let id = id.trim_matches(|letter: char| !letter.is_ascii_alphanumeric());
    match names::is_id(id) {
        true => Ok(id.to_owned()),
        false => Err(Error::Usage(format!(
            "{stem:?} cannot be turned into an id; set one with --id"
        ))),
    }
}

pub(crate) async fn list(args: ListArgs, context: &Context) -> Result<Outcome, Error> {
    let client = context.connect().await?;
    let found = pages(args.limit, async |page_size, page_token| {
        let message = ListDatasetsRequest {
            page_size,
            page_token,
        };
        let response = client.datasets().list_datasets(request(message)).await;
        let page = client.message(response)?;
        Ok((page.datasets, page.next_page_token))
    })
    .await?;
    if context.output.is_json() {
        for dataset in &found {
            context.output.object(&json::value("Dataset", dataset))?;
        }
        return Ok(Outcome::Done);
    }
    if found.is_empty() {
        context.output.note(
            "No named datasets. Create one with `visage dataset push` or `visage dataset register`.",
        );
        return Ok(Outcome::Done);
    }
    let rows: Vec<Vec<String>> = found.iter().map(row).collect();
    let header = ["ID", "STATE", "KIND", "IMAGES", "SIZE", "CREATED", "NAME"];
    table::print(&context.output, &header, &rows)?;
    Ok(Outcome::Done)
}

fn row(dataset: &Dataset) -> Vec<String> {
    let is_ready = dataset.state() == DatasetState::Ready;
    let when_ready = |text: String| if is_ready { text } else { String::new() };
    vec![
        short_names::dataset_id(&dataset.name).to_owned(),
        state_text(dataset.state()).to_owned(),
        kind_text(dataset.kind()).to_owned(),
        when_ready(dataset.images.to_string()),
        when_ready(size_text(dataset.bytes)),
        time_text(dataset.create_time),
        dataset.display_name.clone(),
    ]
}

pub(crate) async fn get(name: &str, context: &Context) -> Result<Outcome, Error> {
    let client = context.connect().await?;
    let dataset = fetch(&short_names::dataset(name), &client, context).await?;
    show(&dataset, context)
}

pub(crate) async fn delete(name: &str, context: &Context) -> Result<Outcome, Error> {
    let client = context.connect().await?;
    let name = short_names::dataset(name);
    let message = DeleteDatasetRequest { name: name.clone() };
    client.message(client.datasets().delete_dataset(request(message)).await)?;
    context.output.note(&format!("Deleted {name}."));
    Ok(Outcome::Done)
}

pub(super) async fn fetch(
    name: &str,
    client: &Client,
    context: &Context,
) -> Result<Dataset, Error> {
    let message = GetDatasetRequest {
        name: name.to_owned(),
    };
    // Repeated, because the server may be restarting.
    let response = client
        .repeat(&context.retry, async || {
            let request = request(message.clone());
            client.datasets().get_dataset(request).await
        })
        .await?;
    response.dataset.ok_or_else(missing)
}

/// The work that the server continues after Ctrl-C.
fn interrupted_message(dataset: &Dataset) -> String {
    let work = match dataset.state() {
        DatasetState::Unpacking => "unpack and scan",
        DatasetState::Scanning
        | DatasetState::Unspecified
        | DatasetState::Ready
        | DatasetState::Failed => "scan",
    };
    let id = short_names::dataset_id(&dataset.name);
    format!(
        "No longer waiting; the server continues to {work} {}. `visage dataset get {id}` shows its \
         state, `visage dataset delete {id}` discards it.",
        dataset.name
    )
}

/// Waits until a dataset is ready or failed, and prints it.
pub(super) async fn show_when_done(
    mut dataset: Dataset,
    detach: bool,
    client: &Client,
    context: &mut Context,
) -> Result<Outcome, Error> {
    let is_in_progress = |dataset: &Dataset| match dataset.state() {
        DatasetState::Unpacking | DatasetState::Scanning => true,
        DatasetState::Unspecified | DatasetState::Ready | DatasetState::Failed => false,
    };
    let mut interrupt = pin!(ctrl_c());
    while !detach && is_in_progress(&dataset) {
        if let Some(progress) = &dataset.progress {
            let share = progress.done as f64 / progress.total.max(1) as f64;
            let text = match progress.phase.as_str() {
                "unpack" => format!("unpack {}", size_text(progress.done)),
                phase => report::step_text(phase, progress.done, progress.total),
            };
            context.output.draw(share, text);
        }
        let poll = async {
            tokio::time::sleep(POLL_INTERVAL).await;
            fetch(&dataset.name, client, context).await
        };
        let polled = tokio::select! {
            polled = poll => polled,
            () = &mut interrupt => {
                context.output.clear();
                context.output.warn(&interrupted_message(&dataset));
                return Ok(Outcome::Interrupted);
            }
        };
        dataset = polled.inspect_err(|_| context.output.clear())?;
    }
    context.output.clear();
    let outcome = show(&dataset, context)?;
    if let Some(hint) = hint(&dataset) {
        context.output.note(&hint);
    }
    Ok(outcome)
}

/// The next command for a new dataset.
fn hint(dataset: &Dataset) -> Option<String> {
    let id = short_names::dataset_id(&dataset.name);
    match dataset.state() {
        DatasetState::Ready => Some(format!(
            "Train on it with `visage train {} --recipe fast`.",
            dataset.name
        )),
        DatasetState::Failed => Some(format!(
            "`visage dataset delete {id}` makes the id available again."
        )),
        DatasetState::Unspecified | DatasetState::Unpacking | DatasetState::Scanning => None,
    }
}

fn show(dataset: &Dataset, context: &Context) -> Result<Outcome, Error> {
    let outcome = match dataset.state() == DatasetState::Failed {
        true => Outcome::Failed,
        false => Outcome::Done,
    };
    let output = &context.output;
    if output.is_json() {
        output.object(&json::value("Dataset", dataset))?;
        return Ok(outcome);
    }
    let title = match dataset.display_name.as_str() {
        "" => dataset.name.clone(),
        name => format!("{}, {name}", dataset.name),
    };
    output.line(&title)?;
    output.line(&format!("State: {}", state_text(dataset.state())))?;
    if !dataset.failure.is_empty() {
        output.line(&format!("Reason: {}", dataset.failure))?;
    }
    let place = match dataset.kind() {
        DatasetKind::Uploaded => "Uploaded to",
        DatasetKind::Registered | DatasetKind::Unspecified => "Registered at",
    };
    output.line(&format!("{place}: {}", dataset.path))?;
    if !dataset.age_pattern.is_empty() {
        output.line(&format!("Age pattern: {}", dataset.age_pattern))?;
    }
    if let Some(columns) = &dataset.columns {
        let roles = [
            ("path", &columns.path),
            ("age", &columns.age),
            ("split", &columns.split),
        ];
        let named = roles.iter().filter(|(_, heading)| !heading.is_empty());
        let named: Vec<String> = named
            .map(|(role, heading)| format!("{role}={heading}"))
            .collect();
        output.line(&format!("Columns: {}", named.join(",")))?;
    }
    if dataset.state() == DatasetState::Ready {
        output.line(&format!(
            "Images: {} ({}), {} other files",
            dataset.images,
            size_text(dataset.bytes),
            dataset.ignored_files
        ))?;
        for line in dataset.report.iter().flat_map(report::dataset_lines) {
            output.line(&line)?;
        }
    }
    Ok(outcome)
}

fn state_text(state: DatasetState) -> &'static str {
    match state {
        DatasetState::Unspecified => "unknown",
        DatasetState::Unpacking => "unpacking",
        DatasetState::Scanning => "scanning",
        DatasetState::Ready => "ready",
        DatasetState::Failed => "failed",
    }
}

fn kind_text(kind: DatasetKind) -> &'static str {
    match kind {
        DatasetKind::Unspecified => "unknown",
        DatasetKind::Registered => "registered",
        DatasetKind::Uploaded => "uploaded",
    }
}

pub(super) fn missing() -> Error {
    Error::Contract("the response has no dataset".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_dataset_names_the_next_command() {
        let hint_of = |state: DatasetState| {
            hint(&Dataset {
                name: "datasets/faces".to_owned(),
                state: state.into(),
                ..Dataset::default()
            })
        };
        let ready = hint_of(DatasetState::Ready).unwrap();
        assert!(
            ready.contains("`visage train datasets/faces --recipe fast`"),
            "{ready}"
        );
        let failed = hint_of(DatasetState::Failed).unwrap();
        assert!(
            failed.starts_with("`visage dataset delete faces`"),
            "{failed}"
        );
        assert_eq!(hint_of(DatasetState::Scanning), None);
    }

    #[test]
    fn an_id_is_derived_from_a_directory_or_requested() {
        let id = |path: &str| id_from(Path::new(path)).ok();
        assert_eq!(id("/data/UTK Face/"), Some("utk-face".to_owned()));
        assert_eq!(id("faces.csv"), Some("faces".to_owned()));
        assert_eq!(id("2026"), None);
        assert_eq!(id("/"), None);
    }
}
