//! Arguments of a worker process. It is started by the server, or by rank 0 of its training.

use std::time::Duration;

use crate::training::worker::RankOptions;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Processes of the training
    #[arg(long, value_name = "N", default_value_t = 1)]
    processes: usize,
    /// Seconds to wait for another process
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    rank_timeout: u64,
    /// This process; 0 receives the training on standard input
    #[arg(long, value_name = "N", default_value_t = 0, requires_all = ["port", "group"])]
    rank: usize,
    /// Port of process 0 on the loopback interface
    #[arg(long)]
    port: Option<u16>,
    /// Name of this start of the training
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
}

impl From<Args> for RankOptions {
    fn from(args: Args) -> Self {
        RankOptions {
            rank: args.rank,
            count: args.processes.max(1),
            port: args.port.unwrap_or_default(),
            group: args.group.unwrap_or_default(),
            timeout: Duration::from_secs(args.rank_timeout),
        }
    }
}
