//! `visage models`: versions, and the aliases that say which one serves.

use crate::proto::v1::{
    DeleteAliasRequest, EpochMetrics, GetModelVersionRequest, ListAliasEventsRequest,
    ListModelVersionsRequest, ModelVersion, RegisterVersionRequest, SetAliasRequest, VersionOrigin,
};

use super::{
    Context, Error, Outcome,
    again::{self, Again, Shown},
    client::{Client, pages, request},
    export, json, names, report, table,
};

const EXAMPLES: &str = "\
Examples:
  visage models list
  visage models list --watch               again every 2 seconds, until Ctrl-C
  visage models get live
  visage models alias set live 3           serve version 3
  visage models alias set live previous    roll back
  visage models alias delete canary
  visage models register faces-2 --epoch 7 make a version of a checkpoint
  visage models export live --format torchscript --output age.pt
  visage models export 7 --format starter --output src/model/starter --check faces/*.jpg
  visage models history";

#[derive(Debug, clap::Subcommand)]
#[command(after_help = EXAMPLES)]
pub(super) enum Command {
    /// List versions, newest first
    List {
        #[command(flatten)]
        list: ListArgs,
        #[command(flatten)]
        again: Again,
    },
    /// Show one version
    Get {
        /// A number, an alias, or `models/MODEL/versions/VERSION`
        version: String,
        #[command(flatten)]
        model: ModelArg,
    },
    /// Make a version of a checkpoint
    Register {
        /// `ID`, `trainings/ID` or `trainings/ID/checkpoints/EPOCH`
        training: String,
        /// The epoch, or `best`
        #[arg(long, value_name = "EPOCH", default_value = "best")]
        epoch: String,
        #[command(flatten)]
        model: ModelArg,
    },
    /// Write a version to a file that other programs read
    Export(export::Args),
    /// Point an alias to a version, or remove one
    #[command(subcommand)]
    Alias(AliasCommand),
    /// List which alias pointed where and when, newest first
    History(ListArgs),
}

#[derive(Debug, clap::Subcommand)]
pub(super) enum AliasCommand {
    /// Point an alias to a version; `live` is what predictions are made with
    Set {
        /// The alias, such as `live`
        alias: String,
        /// A number, another alias, or `models/MODEL/versions/VERSION`
        version: String,
        /// Only if the alias points to this version now; 0 for none
        #[arg(long, value_name = "N")]
        expected: Option<u64>,
        #[command(flatten)]
        model: ModelArg,
    },
    /// Remove an alias; without `live` nothing is predicted
    Delete {
        /// The alias
        alias: String,
        #[command(flatten)]
        model: ModelArg,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct ModelArg {
    /// The model
    #[arg(long, value_name = "MODEL", default_value = "age")]
    pub(super) model: String,
}

#[derive(Debug, clap::Args)]
pub(super) struct ListArgs {
    /// Most entries to list
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: usize,
    #[command(flatten)]
    model: ModelArg,
}

pub(super) async fn run(command: Command, context: &mut Context) -> Result<Outcome, Error> {
    let client = context.connect().await?;
    let mut models = client.models();
    match command {
        Command::List { list: args, again } => {
            let context = &*context;
            return again::show(&again, context, || list(&args, &client, context)).await;
        }
        Command::History(args) => return history(args, context).await,
        Command::Export(args) => return export::run(args, &client, context).await,
        Command::Get { version, model } => {
            let name = names::version(&model.model, &version);
            let answer = models
                .get_model_version(request(GetModelVersionRequest { name }))
                .await;
            show(client.answer(answer)?.version, context)?;
        }
        Command::Register {
            training,
            epoch,
            model,
        } => {
            let message = RegisterVersionRequest {
                checkpoint: names::checkpoint(&training, &epoch),
                parent: names::model(&model.model),
            };
            let answer = models.register_version(request(message)).await;
            show(client.answer(answer)?.version, context)?;
        }
        Command::Alias(AliasCommand::Set {
            alias,
            version,
            expected,
            model,
        }) => {
            let message = SetAliasRequest {
                name: names::version(&model.model, &version),
                alias,
                expected_version: expected,
            };
            let answer = models.set_alias(request(message)).await;
            show(client.answer(answer)?.version, context)?;
        }
        Command::Alias(AliasCommand::Delete { alias, model }) => {
            let message = DeleteAliasRequest {
                parent: names::model(&model.model),
                alias: alias.clone(),
            };
            client.answer(models.delete_alias(request(message)).await)?;
            context.output.note(&format!("Removed the alias {alias}."));
        }
    }
    Ok(Outcome::Done)
}

async fn list(args: &ListArgs, client: &Client, context: &Context) -> Result<Shown, Error> {
    let parent = names::model(&args.model.model);
    let found = pages(args.limit, |page_size, page_token| {
        let message = ListModelVersionsRequest {
            parent: parent.clone(),
            page_size,
            page_token,
        };
        let client = client.clone();
        async move {
            let answer = client.models().list_model_versions(request(message)).await;
            client
                .answer(answer)
                .map(|page| (page.versions, page.next_page_token))
        }
    })
    .await?;
    if context.output.is_json() {
        let objects = found.iter().map(|found| json::value("ModelVersion", found));
        let lines = objects.map(|object| object.to_string());
        return Ok(Shown::changing(lines.collect()));
    }
    let rows: Vec<Vec<String>> = found
        .iter()
        .map(|version| {
            let metrics = version.metrics.as_ref();
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
                table::moment(version.create_time),
                origin(version),
            ]
        })
        .collect();
    if rows.is_empty() {
        context.output.note(&format!("No versions of {parent}."));
        return Ok(Shown::changing(Vec::new()));
    }
    let header = [
        "VERSION", "ALIASES", "VAL LOSS", "VAL MAE", "TEST MAE", "CREATED", "MADE OF",
    ];
    Ok(Shown::changing(table::lines(&header, &rows)))
}

async fn history(args: ListArgs, context: &Context) -> Result<Outcome, Error> {
    let client = context.connect().await?;
    let parent = names::model(&args.model.model);
    let found = pages(args.limit, |page_size, page_token| {
        let message = ListAliasEventsRequest {
            parent: parent.clone(),
            page_size,
            page_token,
        };
        let client = client.clone();
        async move {
            let answer = client.models().list_alias_events(request(message)).await;
            client
                .answer(answer)
                .map(|page| (page.events, page.next_page_token))
        }
    })
    .await?;
    if context.output.is_json() {
        for event in &found {
            context.output.object(&json::value("AliasEvent", event))?;
        }
        return Ok(Outcome::Done);
    }
    let number = |version: u64| match version {
        0 => "-".to_owned(),
        version => version.to_string(),
    };
    let rows: Vec<Vec<String>> = found
        .iter()
        .map(|event| {
            vec![
                table::moment(event.event_time),
                event.alias.clone(),
                number(event.from_version),
                number(event.to_version),
                event.cause.clone(),
            ]
        })
        .collect();
    if rows.is_empty() {
        context
            .output
            .note(&format!("No alias of {parent} has ever moved."));
        return Ok(Outcome::Done);
    }
    table::print(
        &context.output,
        &["TIME", "ALIAS", "FROM", "TO", "CAUSE"],
        &rows,
    )?;
    Ok(Outcome::Done)
}

/// The checkpoint that a version was made of, or what it is instead.
fn origin(version: &ModelVersion) -> String {
    match version.origin() {
        VersionOrigin::Starter => "the starter".to_owned(),
        VersionOrigin::Unspecified | VersionOrigin::Training => version.checkpoint.clone(),
    }
}

fn show(version: Option<ModelVersion>, context: &Context) -> Result<(), Error> {
    let version =
        version.ok_or_else(|| Error::Contract("the model version came back empty".to_owned()))?;
    if context.output.is_json() {
        return context
            .output
            .object(&json::value("ModelVersion", &version));
    }
    let output = &context.output;
    output.line(&version.name)?;
    let aliases = match version.aliases.is_empty() {
        true => "none".to_owned(),
        false => version.aliases.join(", "),
    };
    output.line(&format!("Aliases: {aliases}"))?;
    output.line(&format!("Made of: {}", origin(&version)))?;
    if let Some(metrics) = version.metrics {
        // Of an epoch behind which there may have been others, but not any more.
        let metrics = EpochMetrics {
            eta: None,
            ..metrics
        };
        output.line(&report::epoch_line(&metrics))?;
    }
    if let Some(test) = &version.test {
        for line in report::evaluation_lines("Test", test) {
            output.line(&line)?;
        }
    }
    output.line(&format!("Input: {0} x {0} pixels", version.input_size))?;
    output.line(&format!("Dataset: {}", version.dataset_digest))?;
    for file in &version.files {
        output.line(&format!(
            "File: {} ({}, SHA-256 {})",
            file.name,
            report::size_text(file.size_bytes),
            file.sha256
        ))?;
    }
    Ok(())
}
