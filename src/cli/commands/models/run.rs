//! Runs the subcommands of `visage models`.

use crate::{
    cli::{
        args::{short_names, watch_flag},
        client::request,
        commands::models::{
            Command,
            args::AliasCommand,
            export,
            list::{self, source},
        },
        context::{Context, Outcome},
        error::Error,
        output::{json, text::size_text},
        report,
    },
    proto::v1::{
        DeleteAliasRequest, EpochMetrics, GetModelVersionRequest, ModelVersion,
        RegisterVersionRequest, SetAliasRequest,
    },
};

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
            training,
            epoch,
            model,
        } => {
            let message = RegisterVersionRequest {
                checkpoint: short_names::checkpoint(&training, &epoch),
                parent: short_names::model(&model.model),
                starter: false,
            };
            let response = models.register_version(request(message)).await;
            show(client.message(response)?.version, context)?;
        }
        Command::Alias(AliasCommand::Set {
            alias,
            version,
            expected,
            model,
        }) => {
            let message = SetAliasRequest {
                name: short_names::version(&model.model, &version),
                alias,
                expected_version: expected,
            };
            let response = models.set_alias(request(message)).await;
            show(client.message(response)?.version, context)?;
        }
        Command::Alias(AliasCommand::Delete { alias, model }) => {
            let message = DeleteAliasRequest {
                parent: short_names::model(&model.model),
                alias: alias.clone(),
            };
            client.message(models.delete_alias(request(message)).await)?;
            context.output.note(&format!("Removed the alias {alias}."));
        }
    }
    Ok(Outcome::Done)
}

fn show(version: Option<ModelVersion>, context: &Context) -> Result<(), Error> {
    let version =
        version.ok_or_else(|| Error::Contract("the response has no model version".to_owned()))?;
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
            size_text(file.size_bytes),
            file.sha256
        ))?;
    }
    Ok(())
}
