//! Processes of the other ranks on this machine.

use std::{
    net::{Ipv4Addr, TcpListener},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use super::{environment::Launch, error::Error};

/// Arguments of a worker process about its ranks.
#[derive(Debug, Clone)]
pub(crate) struct RankOptions {
    /// This rank; 0 communicates with the server.
    pub(crate) rank: usize,
    /// Number of ranks.
    pub(crate) count: usize,
    /// Name or address of rank 0's machine.
    pub(crate) host: String,
    /// Port of rank 0; 0 for a rank 0 that starts the others and chooses it.
    pub(crate) port: u16,
    /// Name of this start of the training; empty for a rank 0 that starts the others.
    pub(crate) group: String,
    /// Longest wait for another rank.
    pub(crate) timeout: Duration,
    /// A launcher started all ranks.
    pub(crate) is_launched: bool,
    /// The launcher listens on the port, not rank 0.
    pub(crate) is_hosted: bool,
}

impl RankOptions {
    /// Replaces the place of this process by that which a launcher gave it.
    #[must_use]
    pub(crate) fn launched(self, launch: Launch) -> Self {
        RankOptions {
            rank: launch.rank,
            count: launch.count,
            host: launch.host,
            port: launch.port,
            group: launch.group,
            is_launched: true,
            is_hosted: launch.is_hosted,
            ..self
        }
    }
}

/// The other ranks. Dropping them kills their processes and waits for their end.
#[derive(Debug, Default)]
pub(super) struct LocalRanks(Vec<Child>);

impl LocalRanks {
    /// Starts all ranks except 0 with a listener for them.
    ///
    /// # Errors
    /// A refusal of the operating system.
    pub(super) fn start(options: &RankOptions) -> Result<(Self, TcpListener), Error> {
        let failed = |rank: usize| move |cause| Error::Start { rank, cause };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed(0))?;
        let port = listener.local_addr().map_err(failed(0))?.port();
        let path = std::env::current_exe().map_err(failed(0))?;
        // On Linux also if the file was replaced since this process started.
        let program = if cfg!(target_os = "linux") {
            Path::new("/proc/self/exe")
        } else {
            &path
        };
        let mut ranks = LocalRanks::default();
        for rank in 1..options.count {
            let mut command = Command::new(program);
            command.arg0(&path).arg("worker");
            for (name, value) in [
                ("--processes", options.count.to_string()),
                ("--rank", rank.to_string()),
                ("--port", port.to_string()),
                ("--group", options.group.clone()),
                ("--rank-timeout", options.timeout.as_secs().to_string()),
            ] {
                command.arg(name).arg(value);
            }
            // The pipe closes with this process, which ends the other rank.
            let child = command.stdin(Stdio::piped()).spawn();
            ranks.0.push(child.map_err(failed(rank))?);
        }
        Ok((ranks, listener))
    }
}

impl Drop for LocalRanks {
    fn drop(&mut self) {
        for child in &mut self.0 {
            if let Err(error) = child.kill() {
                tracing::debug!(%error, "failed to kill a rank; it has ended");
            }
            if let Err(error) = child.wait() {
                tracing::warn!(%error, "failed to wait for the end of a rank");
            }
        }
    }
}
