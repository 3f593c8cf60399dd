//! Tables of model versions and of the moves of aliases.

use crate::{
    cli::{
        args::{short_names, watch_flag::Snapshot},
        client::{Client, pages, request},
        commands::models::args::ListArgs,
        context::{Context, Outcome},
        error::Error,
        output::{
            json, table,
            text::{size_text, time_text},
        },
        report::validation_sets,
    },
    proto::v1::{
        AliasEvent, ListAliasEventsRequest, ListModelVersionsRequest, ModelVersion, VersionOrigin,
    },
};

/// Position of the marks in the table of versions, before the losses.
const MARK_COLUMN: usize = 2;

pub(super) async fn versions(
    args: &ListArgs,
    client: &Client,
    context: &Context,
) -> Result<Snapshot, Error> {
    let parent = short_names::model(&args.model.model);
    let found = pages(args.limit, async |page_size, page_token| {
        let message = ListModelVersionsRequest {
            parent: parent.clone(),
            page_size,
            page_token,
        };
        let response = client.models().list_model_versions(request(message)).await;
        let page = client.message(response)?;
        Ok((page.versions, page.next_page_token))
    })
    .await?;
    if context.output.is_json() {
        let objects = found.iter().map(|found| json::value("ModelVersion", found));
        let lines = objects.map(|object| object.to_string());
        return Ok(Snapshot::changing(lines.collect()));
    }
    if found.is_empty() {
        context.output.note(&format!("No versions of {parent}."));
        return Ok(Snapshot::changing(Vec::new()));
    }
    let marks = validation_sets::marks(found.iter().map(|version| version.val_digest.as_str()));
    let header = vec![
        "VERSION", "ALIASES", "VAL LOSS", "VAL MAE", "TEST MAE", "SIZE", "CREATED", "SOURCE",
    ];
    let rows = found.iter().map(version_row).collect();
    let lines = validation_sets::table_lines(header, rows, MARK_COLUMN, marks);
    Ok(Snapshot::changing(lines))
}

fn version_row(version: &ModelVersion) -> Vec<String> {
    let metrics = version.metrics.as_ref();
    let bytes: u64 = version.files.iter().map(|file| file.size_bytes).sum();
    vec![
        version.version.to_string(),
        version.aliases.join(","),
        metrics
            .map(|metrics| format!("{:.4}", metrics.val_loss))
            .unwrap_or_default(),
        metrics
            .map(|metrics| format!("{:.2}", metrics.val_mae))
            .unwrap_or_default(),
        version
            .test
            .as_ref()
            .map(|test| format!("{:.2}", test.mae))
            .unwrap_or_default(),
        size_text(bytes),
        time_text(version.create_time),
        source(version),
    ]
}

/// The checkpoint of a version, or where else it comes from.
pub(super) fn source(version: &ModelVersion) -> String {
    match version.origin() {
        VersionOrigin::Starter => "the starter".to_owned(),
        VersionOrigin::Unspecified | VersionOrigin::Training => version.checkpoint.clone(),
    }
}

pub(super) async fn history(
    args: &ListArgs,
    client: &Client,
    context: &Context,
) -> Result<Outcome, Error> {
    let parent = short_names::model(&args.model.model);
    let found = pages(args.limit, async |page_size, page_token| {
        let message = ListAliasEventsRequest {
            parent: parent.clone(),
            page_size,
            page_token,
        };
        let response = client.models().list_alias_events(request(message)).await;
        let page = client.message(response)?;
        Ok((page.events, page.next_page_token))
    })
    .await?;
    let output = &context.output;
    if output.is_json() {
        for event in &found {
            output.object(&json::value("AliasEvent", event))?;
        }
        return Ok(Outcome::Done);
    }
    if found.is_empty() {
        output.note(&format!("No alias of {parent} has been moved yet."));
        return Ok(Outcome::Done);
    }
    let rows: Vec<Vec<String>> = found.iter().map(event_row).collect();
    let header = ["TIME", "ALIAS", "FROM", "TO", "CAUSE"];
    table::print(output, &header, &rows)?;
    Ok(Outcome::Done)
}

fn event_row(event: &AliasEvent) -> Vec<String> {
    let number = |version: u64| match version {
        0 => "-".to_owned(),
        version => version.to_string(),
    };
    vec![
        time_text(event.event_time),
        event.alias.clone(),
        number(event.from_version),
        number(event.to_version),
        event.cause.clone(),
    ]
}
