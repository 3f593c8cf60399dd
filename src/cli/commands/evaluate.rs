//! `visage evaluate`: the error of a version on a dataset, or on the test images of its training.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use fs_err as fs;
use serde_json::{Value, json};
use tonic::Request;

use crate::{
    cli::{
        args::{
            dataset_args::{DATASET_GROUP, DatasetArg, ReadingArgs, dataset_spec},
            short_names,
        },
        client::{Client, request},
        context::{Context, Outcome},
        error::Error,
        output::json,
        report,
    },
    proto::v1::{
        DatasetSpec, DatasetSplit, EvaluateModelVersionRequest, EvaluationProgress,
        EvaluationReport, GetEvaluationRequest, GetModelVersionRequest, InitSpec, PredictedImage,
        evaluate_model_version_response::Kind,
    },
};

const EXAMPLES: &str = "\
Examples:
  visage evaluate                            stored result on the training's test images
  visage evaluate faces/ --split test
  visage evaluate faces/ --version previous --plots plots/ --interval 0.8
  visage evaluate faces.csv --predictions --json | jq .evaluation.mae";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Version: a number, an alias, or `models/MODEL/versions/VERSION`
    #[arg(long, value_name = "VERSION", default_value = "live")]
    version: String,
    #[command(flatten)]
    dataset: DatasetArg,
    #[command(flatten)]
    reading: ReadingArgs,
    /// Images to evaluate on; a dataset without splits is split as in the version's training
    /// [default: all]
    #[arg(long, value_name = "SPLIT", requires = DATASET_GROUP)]
    split: Option<SplitArg>,
    /// Lowest accepted age in years [default: 0]
    #[arg(long, value_name = "YEARS", requires = DATASET_GROUP)]
    min_age: Option<f64>,
    /// Highest accepted age in years [default: 120]
    #[arg(long, value_name = "YEARS", requires = DATASET_GROUP)]
    max_age: Option<f64>,
    /// Fraction of unusable files above which the evaluation fails, 0 to 1 [default: 0.2]
    #[arg(long, value_name = "SHARE", requires = DATASET_GROUP)]
    max_reject_share: Option<f64>,
    /// Confidence level of the interval, such as 0.8 [default: 0.9]
    #[arg(long, value_name = "LEVEL", requires = DATASET_GROUP)]
    interval: Option<f64>,
    /// Write predicted.png and residuals.png into this directory
    #[arg(long, value_name = "DIRECTORY", requires = DATASET_GROUP)]
    plots: Option<PathBuf>,
    /// Also print the prediction of every image
    #[arg(long, requires = DATASET_GROUP)]
    predictions: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SplitArg {
    All,
    Train,
    #[value(alias = "val")]
    Validation,
    Test,
}

pub(crate) async fn run(args: Args, context: &mut Context) -> Result<Outcome, Error> {
    let name = short_names::version("age", &args.version);
    let Some(dataset) = args.dataset.given() else {
        if args.reading.is_given() {
            let text = "--age-pattern and --column require a dataset";
            return Err(Error::Usage(text.to_owned()));
        }
        return show_stored(name, context).await;
    };
    // Created first, so that a failure is reported before the evaluation.
    if let Some(directory) = &args.plots {
        fs::create_dir_all(directory).map_err(Error::File)?;
    }
    let message = EvaluateModelVersionRequest {
        name,
        dataset: Some(DatasetSpec {
            min_age: args.min_age,
            max_age: args.max_age,
            max_reject_share: args.max_reject_share,
            ..dataset_spec(dataset, &args.reading)?
        }),
        split: match args.split {
            None => DatasetSplit::Unspecified,
            Some(SplitArg::All) => DatasetSplit::All,
            Some(SplitArg::Train) => DatasetSplit::Train,
            Some(SplitArg::Validation) => DatasetSplit::Validation,
            Some(SplitArg::Test) => DatasetSplit::Test,
        }
        .into(),
        include_plots: args.plots.is_some(),
        include_predictions: args.predictions,
        interval_level: args.interval,
    };
    let client = context.connect().await?;
    let (mut report, predictions) = receive(message, &client, context).await?;
    let mut plots = Vec::new();
    if let Some(directory) = &args.plots {
        let (predicted, residual) = (
            std::mem::take(&mut report.predicted_plot_png),
            std::mem::take(&mut report.residual_plot_png),
        );
        plots.push(write_plot(directory, "predicted.png", &predicted)?);
        plots.push(write_plot(directory, "residuals.png", &residual)?);
    }
    if context.output.is_json() {
        let mut object = json::value("EvaluationReport", &report);
        if let Value::Object(fields) = &mut object {
            // Written to files if requested.
            fields.remove("predicted_plot_png");
            fields.remove("residual_plot_png");
            if args.plots.is_some() {
                fields.insert("plots".to_owned(), json!(plots));
            }
            if args.predictions {
                let predictions = predictions
                    .iter()
                    .map(|predicted| json::value("PredictedImage", predicted));
                fields.insert("predictions".to_owned(), predictions.collect());
            }
        }
        context.output.object(&object)?;
        return Ok(Outcome::Done);
    }
    for line in report::evaluation_report_lines(&report) {
        context.output.line(&line)?;
    }
    if args.predictions {
        context.output.line("Predictions:")?;
        for line in report::predicted_lines(&predictions) {
            context.output.line(&line)?;
        }
    }
    for plot in plots {
        context.output.line(&format!("Plot: {plot}"))?;
    }
    Ok(Outcome::Done)
}

/// Prints the stored evaluation.
async fn show_stored(name: String, context: &Context) -> Result<Outcome, Error> {
    let client = context.connect().await?;
    let response = client
        .models()
        .get_evaluation(request(GetEvaluationRequest { name }))
        .await;
    let stored = client.message(response)?;
    if context.output.is_json() {
        context
            .output
            .object(&json::value("GetEvaluationResponse", &stored))?;
        return Ok(Outcome::Done);
    }
    let evaluation = stored
        .evaluation
        .ok_or_else(|| Error::Contract("GetEvaluation returned no evaluation".to_owned()))?;
    context.output.line(&match stored.checkpoint.as_str() {
        "" => format!(
            "{}, on the test images of its training elsewhere",
            stored.model_version
        ),
        checkpoint => format!("{}, from {checkpoint}", stored.model_version),
    })?;
    let init = initial_weights(&stored.model_version, &client).await?;
    let mut lines = report::test_lines(&evaluation, init.as_ref());
    lines.extend(report::worst_lines(&evaluation));
    for line in lines {
        context.output.line(&line)?;
    }
    Ok(Outcome::Done)
}

/// Initial weights of the training of a version.
async fn initial_weights(version: &str, client: &Client) -> Result<Option<InitSpec>, Error> {
    let message = GetModelVersionRequest {
        name: version.to_owned(),
    };
    let response = client.models().get_model_version(request(message)).await;
    let version = client.message(response)?.version;
    Ok(version.and_then(|version| version.spec?.init))
}

/// Follows an evaluation to its report.
async fn receive(
    message: EvaluateModelVersionRequest,
    client: &Client,
    context: &mut Context,
) -> Result<(EvaluationReport, Vec<PredictedImage>), Error> {
    let mut stream = client
        .repeat(&context.retry, async || {
            // Without a deadline, because the duration depends on the dataset.
            let request = Request::new(message.clone());
            client.models().evaluate_model_version(request).await
        })
        .await?;
    let mut predictions = Vec::new();
    loop {
        let response = match client.next(&mut stream, &context.retry).await {
            Ok(Some(response)) => response,
            Ok(None) => {
                return Err(Error::Contract(
                    "the evaluation ended without a report".to_owned(),
                ));
            }
            Err(error) => {
                context.output.clear();
                return Err(error);
            }
        };
        match response.kind {
            Some(Kind::Progress(progress)) => {
                let text = report::step_text(&progress.phase, progress.done, progress.total);
                context.output.draw(fraction(&progress), text);
            }
            Some(Kind::Predictions(page)) => predictions.extend(page.predictions),
            Some(Kind::Report(report)) => {
                context.output.clear();
                return Ok((report, predictions));
            }
            // From a newer server.
            None => {}
        }
    }
}

fn fraction(progress: &EvaluationProgress) -> f64 {
    progress.done as f64 / progress.total.max(1) as f64
}

fn write_plot(directory: &Path, name: &str, png: &[u8]) -> Result<String, Error> {
    let path = directory.join(name);
    fs::write(&path, png).map_err(Error::File)?;
    Ok(path.display().to_string())
}
