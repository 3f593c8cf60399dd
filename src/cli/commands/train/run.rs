//! Starts a training and follows it, or checks its spec only.

use std::time::Duration;

use crate::{
    cli::{
        args::{short_names, spec_field::Field, watch_flag::ctrl_c},
        client::{Client, request_within},
        commands::{
            follow_view::follow,
            train::{
                Args,
                request::{START_TIMEOUT, start_request},
            },
        },
        context::{Context, Outcome},
        error::Error,
        output::{json, table},
        report,
    },
    proto::v1::{StartTrainingRequest, StartTrainingResponse, StreamEpochMetricsRequest, Training},
};

/// Deadline with `--validate-only`, which scans the whole dataset first.
const VALIDATE_TIMEOUT: Duration = Duration::from_secs(1800);

pub(crate) async fn run(args: Args, context: &mut Context) -> Result<Outcome, Error> {
    if args.fields {
        return print_fields(context);
    }
    let (detach, validate_only) = (args.detach, args.validate_only);
    let request = start_request(args)?;
    let client = context.connect().await?;
    let response = start(&client, request, context).await?;
    if validate_only {
        return print_validation(&response, context);
    }
    let training = response
        .training
        .ok_or_else(|| Error::Contract("StartTraining returned no training".to_owned()))?;
    if detach {
        return print_detached(&training, context);
    }
    context.output.note(&format!("Started {}.", training.name));
    let stream = StreamEpochMetricsRequest {
        name: training.name,
        ..StreamEpochMetricsRequest::default()
    };
    follow(context, client, stream, ctrl_c()).await
}

/// Repeats the call if needed, which the request id makes idempotent.
async fn start(
    client: &Client,
    request: StartTrainingRequest,
    context: &Context,
) -> Result<StartTrainingResponse, Error> {
    let timeout = match request.validate_only {
        true => VALIDATE_TIMEOUT,
        false => START_TIMEOUT,
    };
    let call = async || {
        let request = request_within(request.clone(), timeout);
        client.trainings().start_training(request).await
    };
    client.repeat(&context.retry, call).await
}

/// The fields for `--set`.
fn print_fields(context: &Context) -> Result<Outcome, Error> {
    let output = &context.output;
    if output.is_json() {
        for (field, values) in Field::all() {
            output.object(&serde_json::json!({ "field": field, "values": values }))?;
        }
        return Ok(Outcome::Done);
    }
    let rows: Vec<Vec<String>> = Field::all()
        .map(|(field, values)| vec![field, values])
        .collect();
    table::print(output, &["FIELD", "VALUE"], &rows)?;
    Ok(Outcome::Done)
}

fn print_validation(response: &StartTrainingResponse, context: &Context) -> Result<Outcome, Error> {
    let output = &context.output;
    if output.is_json() {
        output.object(&json::value("StartTrainingResponse", response))?;
        return Ok(Outcome::Done);
    }
    let training = response.training.clone().unwrap_or_default();
    for line in training.dataset.iter().flat_map(report::dataset_lines) {
        output.line(&line)?;
    }
    if !training.init_source.is_empty() {
        output.line(&format!("Initial weights: {}", training.init_source))?;
    }
    if let Some(estimate) = &response.estimate {
        output.line(&report::estimate_line(estimate))?;
    }
    output.line("The training can be started; nothing was changed.")?;
    Ok(Outcome::Done)
}

fn print_detached(training: &Training, context: &Context) -> Result<Outcome, Error> {
    let output = &context.output;
    match output.is_json() {
        true => output.object(&json::value("Training", training))?,
        false => output.line(&training.name)?,
    }
    let id = short_names::training_id(&training.name);
    output.note(&format!("Follow it with `visage watch {id}`."));
    Ok(Outcome::Done)
}
