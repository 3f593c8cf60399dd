//! `visage watch`: StreamEpochMetrics from any machine, resumable.

use crate::proto::v1::StreamEpochMetricsRequest;

use super::{
    Context, Error, Outcome, names,
    observe::{ctrl_c, observe},
};

const EXAMPLES: &str = "\
Examples:
  visage watch faces-2                     from the first event to the last
  visage watch trainings/faces-2 --after 7
  visage watch - --json                    all trainings, one event a line
  visage watch faces-2 --no-follow         what has happened so far

A restart of the server neither loses nor repeats a line. The exit code is 1 when the training failed or was cancelled.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// `trainings/ID`, `ID`, or `-` for all trainings
    training: String,
    /// The last sequence seen; only what came after it is shown
    #[arg(long, value_name = "SEQUENCE", default_value_t = 0)]
    after: u64,
    /// The last `resume_token` seen; needed with `-`
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

pub(super) async fn run(args: Args, context: &mut Context) -> Result<Outcome, Error> {
    let name = names::training(&args.training);
    if name == super::follow::ALL && args.after > 0 {
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
    observe(context, client, stream, ctrl_c()).await
}
