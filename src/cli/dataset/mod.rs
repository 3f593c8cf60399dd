//! `visage dataset`: datasets with a name, what is in a dataset, and what is wrong with it.

mod archive;
mod named;
mod push;

use std::path::PathBuf;

use tonic::Request;

use crate::proto::v1::{
    CheckDatasetRequest, DatasetCheck, DatasetSpec, check_dataset_response::Kind,
};

use super::{
    Context, Error, Outcome,
    client::Client,
    dataset_spec, json, names,
    reading::ReadingArgs,
    report, table,
    train::{SplitGroupingArg, split_grouping},
};

const EXAMPLES: &str = "\
Examples:
  visage dataset push faces/ --name faces              from this machine to the server
  visage dataset register /data/faces                  a directory of the server by the name datasets/faces
  visage dataset list
  visage dataset get faces                             its parts, its ages, and what was left out and why
  visage dataset delete faces
  visage dataset check datasets/faces
  visage dataset check faces/
  visage dataset check faces/ --strict                 in a script: fails when an image is in two parts
  visage dataset check faces.csv --model live          also labels that the served model does not believe
  visage dataset check faces/ --split-grouping near --json | jq .near.straddling_groups";

#[derive(Debug, clap::Subcommand)]
#[command(after_help = EXAMPLES)]
pub(super) enum Command {
    /// Send a directory or an archive of this machine to the server and give it a name
    Push(push::Args),
    /// Give a directory of the server a name; it stays where it is
    Register(named::RegisterArgs),
    /// List datasets with a name, newest first
    List(named::ListArgs),
    /// Show one dataset with a name
    Get {
        /// `ID` or `datasets/ID`
        name: String,
    },
    /// Forget a dataset; the images of a pushed one are deleted, those of a registered one stay
    Delete {
        /// `ID` or `datasets/ID`
        name: String,
    },
    /// Look for unusable files, duplicates, leaks between the parts and doubtful labels; changes nothing
    Check(CheckArgs),
}

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CheckArgs {
    /// `datasets/ID`, or a directory of images whose names begin with the age, or a CSV/TSV file with the columns `path` and `age`; on the server's disk
    path: PathBuf,
    #[command(flatten)]
    reading: ReadingArgs,
    /// Also list images whose age lies outside of this version's widest interval: a number, an alias, or `models/MODEL/versions/VERSION`
    #[arg(long, value_name = "VERSION")]
    model: Option<String>,
    /// Read headers and bytes only: several times as fast, finds no near-duplicates and no images that are damaged inside
    #[arg(long)]
    no_near: bool,
    /// Bits of 256 in which the hashes of near-duplicates may differ, 0 to 40 [default: 32]
    #[arg(long, value_name = "BITS", conflicts_with = "no_near")]
    near_distance: Option<u32>,
    /// Most groups and labels to list of each kind, 0 to 1000
    #[arg(long, value_name = "N", default_value_t = 10)]
    list: u32,
    /// Exit with 1 when an image, or one that looks the same, is in more than one part
    #[arg(long)]
    strict: bool,
    /// Share of the images for validation, 0 to 0.9 [default: 0.1]
    #[arg(long, value_name = "SHARE")]
    validation_fraction: Option<f64>,
    /// Share of the images for the final test, 0 to 0.9 [default: 0.1]
    #[arg(long, value_name = "SHARE")]
    test_fraction: Option<f64>,
    /// Which images stay in one part of a split that the server makes [default: exact]
    #[arg(long, value_name = "KIND")]
    split_grouping: Option<SplitGroupingArg>,
    /// Seed of that split, as in a training [default: 42]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Youngest accepted age in years [default: 0]
    #[arg(long, value_name = "YEARS")]
    min_age: Option<f64>,
    /// Oldest accepted age in years [default: 120]
    #[arg(long, value_name = "YEARS")]
    max_age: Option<f64>,
}

pub(super) async fn run(command: Command, context: &mut Context) -> Result<Outcome, Error> {
    match command {
        Command::Push(args) => push::run(args, context).await,
        Command::Register(args) => named::register(args, context).await,
        Command::List(args) => named::list(args, context).await,
        Command::Get { name } => named::get(&name, context).await,
        Command::Delete { name } => named::delete(&name, context).await,
        Command::Check(args) => check(args, context).await,
    }
}

async fn check(args: CheckArgs, context: &mut Context) -> Result<Outcome, Error> {
    let message = CheckDatasetRequest {
        dataset: Some(DatasetSpec {
            validation_fraction: args.validation_fraction,
            test_fraction: args.test_fraction,
            min_age: args.min_age,
            max_age: args.max_age,
            split_grouping: split_grouping(args.split_grouping),
            ..dataset_spec(args.path, &args.reading)?
        }),
        seed: args.seed,
        skip_near_duplicates: args.no_near,
        near_distance: args.near_distance,
        model_version: args
            .model
            .map(|version| names::version("age", &version))
            .unwrap_or_default(),
        max_listed: Some(args.list),
    };
    let client = context.connect().await?;
    let check = receive(message, &client, context).await?;
    if context.output.is_json() {
        context
            .output
            .object(&json::value("DatasetCheck", &check))?;
    } else {
        print(&check, context)?;
    }
    let leaks = straddling(&check);
    if args.strict && leaks > 0 {
        context.output.complain(&format!(
            "{leaks} groups of images lie in more than one part."
        ));
        return Ok(Outcome::Failed);
    }
    Ok(Outcome::Done)
}

/// Groups that lie in more than one part.
fn straddling(check: &DatasetCheck) -> u64 {
    let reports = check.exact.iter().chain(&check.near);
    reports.map(|report| report.straddling_groups).sum()
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

/// Follows a check to its report.
async fn receive(
    message: CheckDatasetRequest,
    client: &Client,
    context: &mut Context,
) -> Result<DatasetCheck, Error> {
    let mut stream = client
        .repeat(&context.patience, || {
            // Without a deadline: how long it takes depends on the dataset.
            let call = Request::new(message.clone());
            let mut datasets = client.datasets();
            async move { datasets.check_dataset(call).await }
        })
        .await?;
    loop {
        let next = client.next(&mut stream, &context.patience).await;
        let response = match next {
            Ok(Some(response)) => response,
            Ok(None) => {
                let text = "the check ended without a report";
                return Err(Error::Contract(text.to_owned()));
            }
            Err(error) => {
                context.output.clear();
                return Err(error);
            }
        };
        match response.kind {
            Some(Kind::Progress(progress)) => {
                let text = report::step_text(&progress.phase, progress.done, progress.total);
                let share = progress.done as f64 / progress.total.max(1) as f64;
                context.output.draw(share, text);
            }
            Some(Kind::Report(report)) => {
                context.output.clear();
                return Ok(report);
            }
            // From a newer server.
            None => {}
        }
    }
}
