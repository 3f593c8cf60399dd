//! Runs the subcommands of `visage models`.

use crate::{
    cli::{
        args::{short_names, watch_flag},
        client::request,
        commands::models::{
            Command, aliases, delete, export,
            list::{self, source},
            missing_version,
        },
        context::{Context, Outcome},
        error::Error,
        output::{json, text::size_text},
        report,
    },
    names::LIVE,
    proto::v1::{EpochMetrics, GetModelVersionRequest, ModelVersion, RegisterVersionRequest},
};

/// Source of `visage models register` that names the built-in face model.
const STARTER: &str = "starter";

pub(crate) async fn run(command: Command, context: &mut Context) -> Result<Outcome, Error> {
    let client = context.connect().await?;
    let mut models = client.models();
    match command {
        Command::List { list: args, watch } => {
            let context = &*context;
            let query = async || list::versions(&args, &client, context).await;
            return watch_flag::print(&watch, context, query).await;
        }
        Command::History(args) => return list::history(&args, &client, context).await,
        Command::Export(args) => return export::run(args, &client, context).await,
        Command::Get { version, model } => {
            let name = short_names::version(&model.model, &version);
            let message = GetModelVersionRequest { name };
            let response = models.get_model_version(request(message)).await;
            show(client.message(response)?.version, context)?;
        }
        Command::Register {
            source,
            epoch,
            model,
        } => {
            let is_starter = source == STARTER;
            let message = RegisterVersionRequest {
                checkpoint: match is_starter {
                    true => String::new(),
                    false => short_names::checkpoint(&source, &epoch),
                },
                parent: short_names::model(&model.model),
                starter: is_starter,
            };
            let response = models.register_version(request(message)).await;
            let version = client.message(response)?.version;
            let number = version.as_ref().map_or(0, |version| version.version);
            let is_live = version
                .as_ref()
                .is_some_and(|version| version.aliases.iter().any(|alias| alias == LIVE));
            show(version, context)?;
            if !is_live {
                let hint = format!("Serve it with `visage models promote {number}`.");
                context.output.note(&hint);
            }
        }
        Command::Promote { version, model } => {
            return aliases::promote(&version, &model, &client, context).await;
        }
        Command::Rollback { model } => return aliases::roll_back(&model, &client, context).await,
        Command::Delete { versions, model } => {
            for version in versions {
                delete::run(&version, &model.model, &client, context).await?;
            }
        }
        Command::Alias(command) => return aliases::run(command, &client, context).await,
    }
    Ok(Outcome::Done)
}

fn show(version: Option<ModelVersion>, context: &Context) -> Result<(), Error> {
    let version = version.ok_or_else(missing_version)?;
    let output = &context.output;
    if output.is_json() {
        return output.object(&json::value("ModelVersion", &version));
    }
    output.line(&version.name)?;
    let aliases = match version.aliases.is_empty() {
        true => "none".to_owned(),
        false => version.aliases.join(", "),
    };
    output.line(&format!("Aliases: {aliases}"))?;
    output.line(&format!("Source: {}", source(&version)))?;
    if let Some(metrics) = version.metrics {
        // The remaining time of the training at that epoch is of no use here.
        let metrics = EpochMetrics {
            eta: None,
            ..metrics
        };
        output.line(&report::epoch_line(&metrics))?;
    }
    if let Some(test) = &version.test {
        let init = version.spec.as_ref().and_then(|spec| spec.init.as_ref());
        for line in report::test_lines(test, init) {
            output.line(&line)?;
        }
    }
    output.line(&format!("Input: {0} x {0} pixels", version.input_size))?;
    output.line(&format!("Dataset digest: {}", version.dataset_digest))?;
    for file in &version.files {
        output.line(&format!(
            "File: {} ({}, SHA-256 {})",
            file.name,
            size_text(file.size_bytes),
            file.sha256
        ))?;
    }
    Ok(())
}
