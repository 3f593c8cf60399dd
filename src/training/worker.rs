//! The child process of one training.
//!
//! It keeps a private copy of its standard output for frames and points standard output at standard error first thing, so that nothing that a library
//! prints can break a frame. The training runs on the main thread: every forward pass on one thread keeps libtorch to one thread pool.

use std::{fs::File, io, process::ExitCode, sync::Arc};

use rustix::{fd::OwnedFd, stdio};

use crate::{
    model::device::compute_with_threads,
    priority::{self, TimeSlice},
    proto::worker_v1::{Job, Started, worker_event::Kind},
    telemetry::logging,
};

use super::{
    process::{Control, Reporter, follow_commands, read_job, worker_exit},
    trainer,
};

/// Runs a training that the server sends on standard input; returns the process' exit code.
pub fn main() -> ExitCode {
    let pipe = match take_standard_output() {
        Ok(pipe) => pipe,
        Err(error) => {
            tracing::error!(%error, "failed to take over standard output");
            return ExitCode::FAILURE;
        }
    };
    let mut input = io::stdin();
    let job = match read_job(&mut input) {
        Ok(job) => job,
        Err(error) => {
            tracing::error!(%error, "no job on standard input; `visage worker` is started by `visage serve`");
            return ExitCode::from(worker_exit::NO_JOB as u8);
        }
    };
    if !job.log_filter.is_empty()
        && let Err(error) = logging::set_filter(&job.log_filter)
    {
        tracing::warn!(%error, "the server's log filter is not taken over");
    }
    // Threads begin as the one that starts them, so this comes before there are any.
    let gave_way = priority::set_nice(job.nice.min(priority::MAX_NICE));
    priority::set_time_slice(TimeSlice::Long);
    let reporter = Arc::new(Reporter::new(File::from(pipe)));
    let control = Arc::new(Control::default());
    // Neither thread is waited for: both live exactly as long as the process.
    let commands = Arc::clone(&control);
    drop(std::thread::spawn(move || {
        follow_commands(&mut input, &commands)
    }));
    let beating = Arc::clone(&reporter);
    drop(std::thread::spawn(move || beating.beat()));
    // After those two, whose signs of life may not wait until the machine has nothing else to do.
    let gave_way = gave_way.and_then(|()| match job.nice > priority::MAX_NICE {
        true => priority::set_idle_policy(),
        false => Ok(()),
    });
    if let Err(error) = gave_way {
        tracing::warn!(%error, nice = job.nice, "failed to give way to other processes");
    }
    match run(&job, &reporter, &control) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Only a broken pipe gets here: nobody is left to tell.
            tracing::warn!(%error, "the server is gone");
            ExitCode::from(worker_exit::ORPHANED as u8)
        }
    }
}

fn run(job: &Job, reporter: &Arc<Reporter>, control: &Control) -> io::Result<()> {
    let started = Started {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        device: job.device.clone(),
    };
    reporter.send(Kind::Started(started))?;
    if job.threads > 0 {
        compute_with_threads(usize::try_from(job.threads).unwrap_or(usize::MAX));
    }
    let finished = trainer::run(job, reporter, control);
    reporter.send(Kind::Finished(finished))
}

/// A private copy of standard output; what is printed from now on goes to standard error.
fn take_standard_output() -> io::Result<OwnedFd> {
    let pipe = rustix::io::fcntl_dupfd_cloexec(stdio::stdout(), 3)?;
    stdio::dup2_stdout(stdio::stderr())?;
    Ok(pipe)
}
