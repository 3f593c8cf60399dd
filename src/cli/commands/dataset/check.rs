//! `visage dataset check`: problems of a dataset.

use std::path::PathBuf;

use tonic::Request;

use crate::{
    cli::{
        args::{
            api_enum,
            dataset_args::{ReadingArgs, dataset_spec},
            short_names,
        },
        client::Client,
        context::{Context, Outcome},
        error::Error,
        output::{json, table},
        report,
    },
    proto::v1::{CheckDatasetRequest, DatasetCheck, DatasetSpec, check_dataset_response::Kind},
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// `datasets/ID`, or a directory of images whose names start with the age, or a CSV/TSV file
    /// with the columns `path` and `age`; on the server's disk
    #[arg(value_name = "DATASET")]
    path: PathBuf,
    #[command(flatten)]
    reading: ReadingArgs,
    /// Also list images whose age is outside the widest interval of this version: a number, an
    /// alias, or `models/MODEL/versions/VERSION`
    #[arg(long, alias = "model", value_name = "VERSION")]
    version: Option<String>,
    /// Read headers and bytes only: several times as fast, but without near-duplicates and without
    /// damaged image data
    #[arg(long)]
    no_near: bool,
    /// Maximum Hamming distance between the 256-bit hashes of near-duplicates, 0 to 40
    /// [default: 32]
    #[arg(long, value_name = "BITS", conflicts_with = "no_near")]
    near_distance: Option<u32>,
    /// Maximum number of listed groups and labels of each kind, 0 to 1000
    #[arg(long, value_name = "N", default_value_t = 10)]
    list: u32,
    /// Exit with 1 if an image or a near-duplicate is in several splits
    #[arg(long)]
    strict: bool,
    /// Fraction of the images for validation, 0 to 0.9 [default: 0.1]
    #[arg(long, value_name = "SHARE")]
    validation_fraction: Option<f64>,
    /// Fraction of the images for the final test, 0 to 0.9 [default: 0.1]
    #[arg(long, value_name = "SHARE")]
    test_fraction: Option<f64>,
    /// Images that stay in the same split: `exact`, byte-identical ones; `near`, also similar ones
    /// [default: exact]
    #[arg(long, value_name = "KIND", value_parser = api_enum::parser("SplitGrouping"))]
    split_grouping: Option<i32>,
    /// Seed of the split, as in a training [default: 42]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Lowest accepted age in years [default: 0]
    #[arg(long, value_name = "YEARS")]
    min_age: Option<f64>,
    /// Highest accepted age in years [default: 120]
    #[arg(long, value_name = "YEARS")]
    max_age: Option<f64>,
}

pub(super) async fn run(args: Args, context: &mut Context) -> Result<Outcome, Error> {
    let message = CheckDatasetRequest {
        dataset: Some(DatasetSpec {
            validation_fraction: args.validation_fraction,
            test_fraction: args.test_fraction,
            min_age: args.min_age,
            max_age: args.max_age,
            split_grouping: args.split_grouping.unwrap_or_default(),
            ..dataset_spec(args.path, &args.reading)?
        }),
        seed: args.seed,
        skip_near_duplicates: args.no_near,
        near_distance: args.near_distance,
        model_version: args
            .version
            .map(|version| short_names::version("age", &version))
            .unwrap_or_default(),
        max_listed: Some(args.list),
    };
    let client = context.connect().await?;
    let check = receive(message, &client, context).await?;
    let output = &context.output;
    if output.is_json() {
        output.object(&json::value("DatasetCheck", &check))?;
    } else {
        print(&check, context)?;
    }
    let leaks: u64 = check
        .exact
        .iter()
        .chain(&check.near)
        .map(|report| report.straddling_groups)
        .sum();
    if args.strict && leaks > 0 {
        output.warn(&format!("{leaks} groups of images are in several splits."));
        return Ok(Outcome::Failed);
    }
    Ok(Outcome::Done)
}

fn print(check: &DatasetCheck, context: &Context) -> Result<(), Error> {
    for section in report::check_sections(check) {
        for line in &section.lines {
            context.output.line(line)?;
        }
        if !section.rows.is_empty() {
            table::print(&context.output, section.header, &section.rows)?;
        }
    }
    Ok(())
}

/// Follows a check until its report.
async fn receive(
    message: CheckDatasetRequest,
    client: &Client,
    context: &mut Context,
) -> Result<DatasetCheck, Error> {
    let mut stream = client
        .repeat(&context.retry, async || {
            // Without a deadline, because the duration depends on the dataset.
            let request = Request::new(message.clone());
            client.datasets().check_dataset(request).await
        })
        .await?;
    let output = &mut context.output;
    loop {
        let response = match client.next(&mut stream, &context.retry).await {
            Ok(Some(response)) => response,
            Ok(None) => {
                let text = "the check ended without a report";
                return Err(Error::Contract(text.to_owned()));
            }
            Err(error) => {
                output.clear();
                return Err(error);
            }
        };
        match response.kind {
            Some(Kind::Progress(progress)) => {
                let text = report::step_text(&progress.phase, progress.done, progress.total);
                let share = progress.done as f64 / progress.total.max(1) as f64;
                output.draw(share, text);
            }
            Some(Kind::Report(report)) => {
                output.clear();
                return Ok(report);
            }
            // From a newer server.
            None => {}
        }
    }
}
