//! Arguments of the program, and the dispatch to its commands.

use std::{path::PathBuf, process::ExitCode};

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use tokio::runtime::Runtime;

use crate::{
    cli::{
        client::{RetryPolicy, wrong_port},
        commands::{
            completions, config, data, dataset, evaluate, info, log_level, man, models, predict,
            serve, servers, sweep, synth, token, top, train, trainings, watch, worker,
        },
        context::{Context, Outcome},
        error::Error,
        examples,
        output::Output,
        suggestions,
    },
    config::{ClientConfig, ClientFlags, Environment},
    priority::{self, TimeSlice},
    training,
};

const EXAMPLES: &str = "\
Examples:
  visage serve                                  run the server on this machine
  visage synth faces/ --count 500               draw a small dataset for a first try
  visage dataset push faces/ --id faces         upload a directory as a named dataset
  visage dataset check faces/                   show a dataset's contents and its problems
  visage train faces/ --recipe fast             fine-tune and follow
  visage predict me.jpg --annotate out.png      predict an age and draw it
  visage evaluate faces/ --split test           measure the error of the live version
  visage models rollback                        serve the version that was live before
  visage trainings list                         list trainings
  visage top                                    show current trainings and serving load

Exit codes: 0 success, 1 failure, 2 wrong usage, 3 server unreachable,
130 interrupted.";

/// Fine-tunes ResNet18 into an age regressor and serves it over gRPC.
#[derive(Debug, Parser)]
#[command(name = "visage", version, after_help = EXAMPLES, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Global {
    /// Address of the server: HOST:PORT, https://HOST:PORT, unix:/PATH, or a name of `visage
    /// servers` [env: VISAGE_SERVER] [default: http://127.0.0.1:50051]
    #[arg(
        long,
        global = true,
        value_name = "HOST:PORT",
        help_heading = "Global options"
    )]
    server: Option<String>,
    /// Certificates (PEM) of the authority that issued the server's certificate, instead of the
    /// system's [env: VISAGE_CA]
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        help_heading = "Global options"
    )]
    ca: Option<PathBuf>,
    /// Client certificate (PEM), for a server that requires one [env: VISAGE_CERT]
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        help_heading = "Global options"
    )]
    cert: Option<PathBuf>,
    /// Private key (PEM) of --cert [env: VISAGE_KEY]
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        help_heading = "Global options"
    )]
    key: Option<PathBuf>,
    /// File with the token that the server requires; VISAGE_TOKEN has the token itself [env:
    /// VISAGE_TOKEN_FILE]
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        help_heading = "Global options"
    )]
    token_file: Option<PathBuf>,
    /// Print one JSON object per line, with the field names of the API
    #[arg(long, global = true, help_heading = "Global options")]
    pub(crate) json: bool,
    /// Print results and errors only
    #[arg(long, global = true, help_heading = "Global options")]
    quiet: bool,
}

impl Global {
    fn client_flags(&self) -> ClientFlags {
        ClientFlags {
            server: self.server.clone(),
            ca: self.ca.clone(),
            cert: self.cert.clone(),
            key: self.key.clone(),
            token_file: self.token_file.clone(),
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the server
    Serve(serve::Args),
    /// Start a training and follow it
    Train(Box<train::Args>),
    /// Train a grid of settings, or random ones, and compare the results
    Sweep(sweep::Args),
    /// Follow a training, or all of them
    Watch(watch::Args),
    /// Show trainings and serving load, refreshed continuously
    Top(top::Args),
    /// Predict the age on images
    Predict(predict::Args),
    /// Measure the error of a version on a dataset, or show that on its test images
    Evaluate(evaluate::Args),
    /// Upload, register, list and check datasets
    #[command(subcommand, alias = "datasets")]
    Dataset(dataset::Command),
    /// List, inspect, stop and delete trainings
    #[command(subcommand, alias = "training")]
    Trainings(trainings::Command),
    /// List model versions and choose the live one
    #[command(subcommand, alias = "model")]
    Models(models::Command),
    /// Write a directory of synthetic faces with known ages
    Synth(synth::Args),
    /// Show the server's version, device, limits and disk use
    #[command(after_help = info::EXAMPLES)]
    Info,
    /// Show the settings that `serve` would use in this directory, and their sources
    Config(config::Args),
    /// Add, list and revoke the tokens, users and certificates that a server accepts
    #[command(alias = "tokens")]
    Token(token::Args),
    /// Copy a data directory, also while its server runs
    Backup(data::backup::Args),
    /// Verify backups or a data directory
    Verify(data::verify::Args),
    /// Create a data directory from a backup
    Restore(data::restore::Args),
    /// Compare a database with the files beside it after an incomplete restore
    Repair(data::repair::Args),
    /// Name servers with their credentials, and select one
    Servers(servers::Args),
    /// Show or change the log filter of the running server
    LogLevel(log_level::Args),
    /// Print a completion script for a shell
    Completions(completions::Args),
    /// Write a manual page for each command to a directory
    Man(man::Args),
    /// Run one training; started by the server, which communicates with it over pipes
    #[command(hide = true)]
    Worker(worker::Args),
}

/// Runs the program with the arguments and the environment of the process.
#[must_use]
pub fn main() -> ExitCode {
    let parsed = parser()
        .try_get_matches()
        .and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => {
            let error = suggestions::sorted(error);
            // Help is printed to stdout, whose reader may have closed it; that is not an error.
            error.print().ok();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    if let Command::Worker(args) = cli.command {
        serve::init_worker_logging();
        return match args.options() {
            Ok(options) => training::worker::main(&options),
            Err(error) => {
                tracing::error!(%error, "failed to find the place of this process in its launch");
                ExitCode::FAILURE
            }
        };
    }
    let mut output = Output::of_process(cli.global.json, cli.global.quiet);
    match prepare_and_run(cli, &mut output) {
        Ok(outcome) => ExitCode::from(outcome.exit_code()),
        Err(error) => ExitCode::from(output.fail(&error)),
    }
}

/// The parser, with the examples in the help of every command.
pub(crate) fn parser() -> clap::Command {
    examples::hand_down(Cli::command())
}

fn prepare_and_run(cli: Cli, output: &mut Output) -> Result<Outcome, Error> {
    let environment = Environment::of_process()?;
    let flags = cli.global.client_flags();
    let client = ClientConfig::resolve(&environment, flags.clone())?;
    output.set_color(client.color);
    let mut context = Context {
        environment,
        client,
        flags,
        retry: RetryPolicy::default(),
        output: output.clone(),
    };
    if matches!(cli.command, Command::Serve(_)) {
        // Before any thread is started, because threads inherit the time slice.
        priority::set_time_slice(TimeSlice::Short);
    }
    let runtime = Runtime::new().map_err(Error::Runtime)?;
    let result = runtime.block_on(run(cli.command, &mut context));
    // A pending read of stdin must not keep the process alive.
    runtime.shutdown_background();
    result
}

pub(crate) async fn run(command: Command, context: &mut Context) -> Result<Outcome, Error> {
    match dispatch(command, context).await {
        Err(Error::Unreachable { server, cause }) => Err(wrong_port::explain(server, cause).await),
        result => result,
    }
}

async fn dispatch(command: Command, context: &mut Context) -> Result<Outcome, Error> {
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
        Command::Token(args) => token::run(&args, context),
        Command::Backup(args) => Box::pin(data::backup::run(args, context)).await,
        Command::Verify(args) => Box::pin(data::verify::run(args, context)).await,
        Command::Restore(args) => data::restore::run(&args, context),
        Command::Repair(args) => Box::pin(data::repair::run(args, context)).await,
        Command::Servers(args) => servers::run(args, context),
        Command::LogLevel(args) => Box::pin(log_level::run(args, context)).await,
        Command::Completions(args) => completions::run(args, parser(), context),
        Command::Man(args) => man::run(&args, parser(), context),
        Command::Worker(_) => unreachable!("`main` runs it without a runtime"),
    }
}
