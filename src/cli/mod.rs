//! The command line: arguments to a call of the public API, and the answer to text or JSON.
//!
//! Each command is a file with its arguments and one `run`. All but `serve`, `worker` and the purely local ones are clients like any
//! other. Results go to stdout, everything else to stderr, both through `Output`. Exit codes: 0 done (for a training: SUCCEEDED),
//! 1 failed, 2 wrong usage or settings, 3 no server, 130 interrupted, 141 the reader of stdout has left.

mod again;
mod client;
mod completions;
mod config;
mod dataset;
mod download;
mod error;
mod evaluate;
mod examples;
mod export;
mod fields;
mod flags;
mod follow;
mod images;
mod info;
mod json;
mod log_level;
mod man;
mod models;
mod names;
mod observe;
mod output;
mod predict;
mod printer;
mod reading;
mod receive;
mod report;
mod serve;
mod sweep;
mod synth;
mod table;
mod top;
mod train;
mod trainings;
mod watch;

use std::{env, process::ExitCode};

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use tokio::runtime::Runtime;

use crate::{
    config::{ClientConfig, Environment},
    priority::{self, TimeSlice},
    proto::v1::DatasetSpec,
};

use self::{
    client::{Client, Patience},
    error::Error,
    output::Output,
    reading::ReadingArgs,
};

const EXAMPLES: &str = "\
Examples:
  visage serve                                  run the server on this machine
  visage synth faces/ --count 500               make a small dataset to play with
  visage dataset push faces/ --name faces       give a directory a name on the server
  visage dataset check faces/                   see what is in a dataset, and what is wrong with it
  visage train --dataset faces/ --epochs 10     fine-tune and follow
  visage predict me.jpg --annotate out.png      predict an age and draw it
  visage evaluate --dataset faces/ --split test see how well it predicts
  visage trainings list                         see what was trained
  visage top                                    see what the server does now

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no server answers, 130 interrupted.";

/// Fine-tunes ResNet18 into an age regressor and serves it over gRPC.
#[derive(Debug, Parser)]
#[command(name = "visage", version, after_help = EXAMPLES, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Args)]
struct Global {
    /// The server to call [env: VISAGE_SERVER] [default: http://127.0.0.1:50051]
    #[arg(
        long,
        global = true,
        value_name = "HOST:PORT",
        help_heading = "Global options"
    )]
    server: Option<String>,
    /// Print one JSON object a line, with the field names of the API
    #[arg(long, global = true, help_heading = "Global options")]
    json: bool,
    /// Print results and errors only
    #[arg(long, global = true, help_heading = "Global options")]
    quiet: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server
    Serve(serve::Args),
    /// Start a training and follow it
    Train(Box<train::Args>),
    /// Try a grid of settings, or random ones, and compare
    Sweep(sweep::Args),
    /// Follow a training, or all of them
    Watch(watch::Args),
    /// Show trainings and serving at a glance, again and again
    Top(top::Args),
    /// Predict the age on images
    Predict(predict::Args),
    /// Tell how well a version predicts, on a dataset or on its training's test images
    Evaluate(evaluate::Args),
    /// Send, name, list and look through datasets
    #[command(subcommand)]
    Dataset(dataset::Command),
    /// List, inspect, stop and delete trainings
    #[command(subcommand)]
    Trainings(trainings::Command),
    /// List model versions and choose the one that serves
    #[command(subcommand)]
    Models(models::Command),
    /// Write a directory of synthetic faces with known ages
    Synth(synth::Args),
    /// Show the server's version, device and limits
    #[command(after_help = info::EXAMPLES)]
    Info,
    /// Show the server's settings and where each comes from
    Config(config::Args),
    /// Show or change what the running server logs
    LogLevel(log_level::Args),
    /// Print a completion script for a shell
    Completions(completions::Args),
    /// Write a manual page for each command to a directory
    Man(man::Args),
    /// Run one training; started by the server, which speaks to it over pipes
    #[command(hide = true)]
    Worker,
}

/// What every command gets: where to call and where to write.
struct Context {
    environment: Environment,
    client: ClientConfig,
    patience: Patience,
    output: Output,
}

impl Context {
    async fn connect(&self) -> Result<Client, Error> {
        Client::connect(&self.client.server).await
    }
}

/// How a command ended that did not fail with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Everything asked for was done.
    Done,
    /// The answer is that something failed; it was printed.
    Failed,
    /// Ctrl-C.
    Interrupted,
}

impl Outcome {
    fn exit_code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Interrupted => 130,
        }
    }
}

/// Runs the program on the process's arguments and environment.
#[must_use]
pub fn main() -> ExitCode {
    let parsed = command()
        .try_get_matches()
        .and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => {
            // Help goes to stdout, whose reader may have left; there is nobody to tell then.
            error.print().ok();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    if matches!(cli.command, Command::Worker) {
        serve::log_as_worker();
        return crate::training::worker::main();
    }
    let mut output = Output::of_process(cli.global.json, cli.global.quiet);
    match prepare_and_run(cli, &mut output) {
        Ok(outcome) => ExitCode::from(outcome.exit_code()),
        Err(error) => ExitCode::from(output.fail(&error)),
    }
}

/// The command line with all that its help shows.
fn command() -> clap::Command {
    examples::hand_down(Cli::command())
}

fn prepare_and_run(cli: Cli, output: &mut Output) -> Result<Outcome, Error> {
    let environment = Environment::of_process()?;
    let client = ClientConfig::resolve(&environment, cli.global.server.as_deref())?;
    output.set_color(client.color);
    let mut context = Context {
        environment,
        client,
        patience: Patience::default(),
        output: output.clone(),
    };
    if matches!(cli.command, Command::Serve(_)) {
        // Before there are threads, which begin as this one is.
        priority::set_time_slice(TimeSlice::Short);
    }
    let runtime = Runtime::new().map_err(Error::Runtime)?;
    let result = runtime.block_on(run(cli.command, &mut context));
    // A read of stdin that nobody waits for any more must not keep the program alive.
    runtime.shutdown_background();
    result
}

async fn run(command: Command, context: &mut Context) -> Result<Outcome, Error> {
    match command {
        Command::Serve(args) => Box::pin(serve::run(args, context)).await,
        Command::Train(args) => Box::pin(train::run(*args, context)).await,
        Command::Sweep(args) => Box::pin(sweep::run(args, context)).await,
        Command::Top(args) => Box::pin(top::run(args, context)).await,
        Command::Watch(args) => Box::pin(watch::run(args, context)).await,
        Command::Predict(args) => Box::pin(predict::run(args, context)).await,
        Command::Evaluate(args) => Box::pin(evaluate::run(args, context)).await,
        Command::Dataset(command) => Box::pin(dataset::run(command, context)).await,
        Command::Trainings(command) => Box::pin(trainings::run(command, context)).await,
        Command::Models(command) => Box::pin(models::run(command, context)).await,
        Command::Synth(args) => synth::run(args, context),
        Command::Info => Box::pin(info::run(context)).await,
        Command::Config(args) => config::run(&args, context),
        Command::LogLevel(args) => Box::pin(log_level::run(args, context)).await,
        Command::Completions(args) => completions::run(args, context),
        Command::Man(args) => man::run(&args, context),
        Command::Worker => unreachable!("`main` runs it without a runtime"),
    }
}

/// The dataset that is meant: `datasets/ID` is one with a name, wherever the command runs; everything else is a path, such as `./datasets/ID`.
fn dataset_spec(given: std::path::PathBuf, reading: &ReadingArgs) -> Result<DatasetSpec, Error> {
    let spec = DatasetSpec {
        age_pattern: reading.age_pattern.clone().unwrap_or_default(),
        columns: reading.columns(),
        ..DatasetSpec::default()
    };
    match given.to_str() {
        Some(name) if crate::names::dataset_id(name).is_ok() => Ok(DatasetSpec {
            name: name.to_owned(),
            ..spec
        }),
        _ => Ok(DatasetSpec {
            path: absolute(given)?,
            ..spec
        }),
    }
}

/// The directory that relative paths count from.
fn current_dir() -> Result<std::path::PathBuf, Error> {
    env::current_dir().map_err(Error::CurrentDir)
}

/// The server's current directory is not ours, so it gets absolute paths: canonical where the file is on this machine, too.
fn absolute(path: std::path::PathBuf) -> Result<String, Error> {
    let full = match fs_err::canonicalize(&path) {
        Ok(canonical) => canonical,
        Err(_) => current_dir()?.join(&path).components().collect(),
    };
    full.into_os_string()
        .into_string()
        .map_err(|path| Error::Usage(format!("{} is not valid UTF-8", path.display())))
}

#[cfg(test)]
mod tests;
