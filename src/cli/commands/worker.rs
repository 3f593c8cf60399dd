//! Arguments of a worker process. It is started by the server, or by rank 0 of its training.

use std::{net::Ipv4Addr, time::Duration};

use crate::{
    config::Environment,
    training::worker::{EnvironmentError, RankOptions, launch},
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Processes of the training
    #[arg(long, value_name = "N", default_value_t = 1)]
    processes: usize,
    /// A launcher may have started several processes, which its variables number
    #[arg(long, conflicts_with = "rank")]
    launched: bool,
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

impl Args {
    /// Returns the options, with the place of this process among those of a launcher.
    ///
    /// # Errors
    /// A variable of the launcher that is missing or invalid.
    pub(crate) fn options(self) -> Result<RankOptions, EnvironmentError> {
        let options = RankOptions {
            rank: self.rank,
            count: self.processes.max(1),
            host: Ipv4Addr::LOCALHOST.to_string(),
            port: self.port.unwrap_or_default(),
            group: self.group.unwrap_or_default(),
            timeout: Duration::from_secs(self.rank_timeout),
            is_launched: false,
            is_hosted: false,
        };
        if !self.launched {
            return Ok(options);
        }
        let parent = std::os::unix::process::parent_id();
        Ok(match launch(Environment::launcher_variable, parent)? {
            Some(launch) => options.launched(launch),
            None => options,
        })
    }
}
