//! Entry point of the worker process.
//!
//! The process first keeps a private copy of its standard output for frames and redirects standard
//! output to standard error, so that no library can write into a frame. The training runs on the
//! main thread: with every forward pass on one thread libtorch uses one thread pool.

use std::{fs::File, io, process::ExitCode, sync::Arc};

use rustix::{fd::OwnedFd, stdio};

use crate::{
    model::device::compute_with_threads,
    priority::{self, TimeSlice},
    proto::worker_v1::{Job, Started, worker_event::Kind},
    telemetry::logging,
    training::{
        protocol::EXIT_RANK_LOST,
        ranks::{self, RankOptions},
    },
};

use super::{
    follower,
    link::{ControlState, EXIT_ORPHANED, EventSender, PipeError, follow_commands, read_job},
    trainer,
};

const EXIT_NO_JOB: u8 = 4;

/// Runs the training that the server sends on standard input, or another rank of one; returns the
/// exit code of the process.
pub(crate) fn main(options: &RankOptions) -> ExitCode {
    if options.rank > 0 {
        return follower::main(options);
    }
    let pipe = match take_standard_output() {
        Ok(pipe) => pipe,
        Err(error) => {
            tracing::error!(%error, "failed to redirect standard output");
            return ExitCode::FAILURE;
        }
    };
    let mut input = io::stdin();
    let job = match read_job(&mut input) {
        Ok(job) => job,
        Err(error) => {
            tracing::error!(%error, "failed to read a job from standard input; `visage worker` is started by `visage serve`");
            return ExitCode::from(EXIT_NO_JOB);
        }
    };
    if !job.log_filter.is_empty()
        && let Err(error) = logging::set_filter(&job.log_filter)
    {
        tracing::warn!(%error, "failed to set the log filter of the server");
    }
    if let Err(error) = priority::end_first_without_memory() {
        tracing::debug!(%error, "failed to set the out-of-memory score");
    }
    // Before other threads exist: a thread inherits the priority of the one that starts it.
    let priority_set = priority::set_nice(job.nice.min(priority::MAX_NICE));
    priority::set_time_slice(TimeSlice::Long);
    let events = Arc::new(EventSender::new(File::from(pipe)));
    let control = Arc::new(ControlState::default());
    // Neither thread is joined: both live as long as the process.
    let commands = Arc::clone(&control);
    drop(std::thread::spawn(move || {
        follow_commands(&mut input, &commands)
    }));
    let heartbeats = Arc::clone(&events);
    drop(std::thread::spawn(move || heartbeats.send_heartbeats()));
    // After the two threads, which must run even if the machine is never idle.
    let priority_set = priority_set.and_then(|()| {
        if job.nice > priority::MAX_NICE {
            priority::set_idle_policy()
        } else {
            Ok(())
        }
    });
    if let Err(error) = priority_set {
        tracing::warn!(%error, nice = job.nice, "failed to lower the scheduling priority");
    }
    match run(&job, options, &events, &control) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Lost::Server(error)) => {
            tracing::warn!(%error, "lost the connection to the server");
            ExitCode::from(EXIT_ORPHANED)
        }
        Err(Lost::Rank(error)) => {
            tracing::warn!(%error, "lost a rank of the training");
            ExitCode::from(EXIT_RANK_LOST)
        }
    }
}

/// A lost connection, after which the process ends without a result.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error(transparent)]
    Server(#[from] PipeError),
    #[error(transparent)]
    Rank(#[from] ranks::Error),
}

fn run(
    job: &Job,
    options: &RankOptions,
    events: &Arc<EventSender>,
    control: &ControlState,
) -> Result<(), Lost> {
    events.send(Kind::Started(Started {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        device: job.device.clone(),
    }))?;
    if job.threads > 0 {
        compute_with_threads(usize::try_from(job.threads).unwrap_or(usize::MAX));
    }
    let finished = trainer::run(job, options, events, control)?;
    Ok(events.send(Kind::Finished(finished))?)
}

/// Returns a private copy of standard output, and redirects standard output to standard error.
fn take_standard_output() -> io::Result<OwnedFd> {
    let pipe = rustix::io::fcntl_dupfd_cloexec(stdio::stdout(), 3)?;
    stdio::dup2_stdout(stdio::stderr())?;
    Ok(pipe)
}
