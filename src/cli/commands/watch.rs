//! `visage watch`: follows the events of a training, resumable from any machine.

use crate::{
    cli::{
        args::{short_names, watch_flag::ctrl_c},
        client::ALL_TRAININGS,
        commands::follow_view::follow,
        context::{Context, Outcome},
        error::Error,
    },
    proto::v1::StreamEpochMetricsRequest,
};

const EXAMPLES: &str = "\
Examples:
  visage watch faces-2                     from the first event to the last
  visage watch trainings/faces-2 --after 7
  visage watch - --json                    all trainings, one event per line
  visage watch faces-2 --no-follow         events so far

A restart of the server neither loses nor repeats a line.
The exit code is 1 if the training failed or was cancelled.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// `trainings/ID`, `ID`, or `-` for all trainings
    training: String,
    /// Last sequence that was received; only later events are shown
    #[arg(long, value_name = "SEQUENCE", default_value_t = 0)]
    after: u64,
    /// Last `resume_token` that was received; the cursor for `-`
    #[arg(
        long,
        value_name = "TOKEN",
        default_value = "",
        hide_default_value = true
    )]
    resume_token: String,
    /// Stop at the latest event instead of waiting for more
    #[arg(long)]
    no_follow: bool,
}

pub(crate) async fn run(args: Args, context: &mut Context) -> Result<Outcome, Error> {
    let name = short_names::training(&args.training);
    if name == ALL_TRAININGS && args.after > 0 {
        return Err(Error::Usage(
            "--after counts the events of one training; with `-` use --resume-token".to_owned(),
        ));
    }
    let client = context.connect().await?;
    let stream = StreamEpochMetricsRequest {
        name,
        after_sequence: args.after,
        resume_token: args.resume_token,
        follow: Some(!args.no_follow),
        ..StreamEpochMetricsRequest::default()
    };
    follow(context, client, stream, ctrl_c()).await
}
