//! The process of a rank other than 0.

use std::{
    io::Read,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use fs_err::OpenOptions;
use rustix::stdio;
use tch::Device;

use crate::{
    model::device::compute_with_threads,
    telemetry::logging,
    training::{
        protocol::EXIT_RANK_LOST,
        ranks::{RankOptions, Ranks},
        spec::Spec,
    },
};

use super::{
    build::Start,
    error::Error,
    link::{ControlState, EXIT_ORPHANED, EventSender},
    session::Session,
    setup::Setup,
    spans::Spans,
    trainer::train_epochs,
};

/// Time for the training to end when rank 0 is gone.
const ORPHAN_GRACE: Duration = Duration::from_secs(1);

/// Computes this rank's share of a training until it ends; returns the exit code of the process.
pub(super) fn main(options: &RankOptions) -> ExitCode {
    // A launcher may forward the standard output to the server, which reads frames of rank 0 there.
    if let Err(error) = stdio::dup2_stdout(stdio::stderr()) {
        tracing::error!(%error, "failed to redirect standard output");
        return ExitCode::FAILURE;
    }
    if !options.is_launched {
        end_with_first();
    }
    let rank = options.rank;
    match run(options) {
        Ok(()) => ExitCode::SUCCESS,
        // Rank 0 has the same result and reports it.
        Err(Error::Cancelled | Error::NonFiniteLoss { .. } | Error::TooManySkipped { .. }) => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            // The server starts the training again, and records why it ended.
            tracing::warn!(rank, %error, "rank of the training ended early");
            ExitCode::from(EXIT_RANK_LOST)
        }
    }
}

/// Ends this process with rank 0, which started it.
fn end_with_first() {
    #[cfg(target_os = "linux")]
    if let Err(error) =
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
    {
        tracing::warn!(%error, "failed to set the signal for the end of rank 0");
    }
    // Not joined: it lives as long as the process.
    drop(std::thread::spawn(exit_with_first));
}

/// Exits when rank 0 closes the pipe to this process.
fn exit_with_first() {
    let mut input = std::io::stdin();
    let mut byte = [0];
    while input.read(&mut byte).is_ok_and(|count| count > 0) {}
    std::thread::sleep(ORPHAN_GRACE);
    std::process::exit(i32::from(EXIT_ORPHANED));
}

fn run(options: &RankOptions) -> Result<(), Error> {
    let started = Instant::now();
    let ranks = Ranks::connect(options)?;
    let Some(setup) = Setup::receive(&ranks)? else {
        return Ok(());
    };
    let Setup {
        job,
        dataset,
        restored,
    } = setup;
    if !job.log_filter.is_empty()
        && let Err(error) = logging::set_filter(&job.log_filter)
    {
        tracing::warn!(%error, "failed to set the log filter of the server");
    }
    let spec = Spec::resolve(job.spec.as_ref())
        .map_err(|violations| Error::Spec(format!("{violations:?}")))?;
    compute_with_threads(1);
    // Only rank 0 reports to the server.
    let unused = OpenOptions::new().write(true).open("/dev/null");
    let unused = unused.map_err(crate::model::Error::Io)?;
    let events = Arc::new(EventSender::new(unused.into()));
    let mut session = Session::build(Start {
        job: &job,
        spec,
        dataset: &dataset,
        device: Device::Cpu,
        events: &events,
        started,
        restored: Some(restored),
        ranks,
    })?;
    let spans = Spans::new(&job, &events);
    train_epochs(&mut session, &spans, &events, &ControlState::default())?;
    Ok(())
}
