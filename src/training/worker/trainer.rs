//! The training: scan, initial weights or a resume point, epochs, test.
//!
//! The order and augmentation of images are functions of seed, epoch and position. On a CPU the
//! same spec, data and machine therefore give the same losses and weights, however often the
//! process is interrupted.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Instant, SystemTime},
};

use tch::Device;

use crate::{
    dataset::{self, Dataset, dataset_report},
    model::device,
    proto::{
        v1,
        worker_v1::{Finished, Job, Restarted, worker_event},
    },
    training::{
        control::ControlSignal,
        ranks::{self, RankOptions, Ranks, WaitingRanks},
        spec::Spec,
    },
};

use super::{
    build::{Start, limits},
    epoch::EpochEnd,
    error::Error,
    full_checkpoint::{self, Restored},
    link::{ControlState, EventSender},
    session::Session,
    spans::Spans,
};

/// Runs a job and returns how it ended.
///
/// # Errors
/// A lost rank, after which the server starts the training again.
pub(super) fn run(
    job: &Job,
    options: &RankOptions,
    events: &Arc<EventSender>,
    control: &ControlState,
) -> Result<Finished, ranks::Error> {
    Ok(match train(job, options, events, control) {
        Ok(finished) => finished,
        Err(Error::Ranks(error)) => return Err(error),
        Err(Error::Cancelled) => Finished {
            stop_reason: v1::StopReason::UserStop.into(),
            cancelled: true,
            ..Default::default()
        },
        Err(error) => {
            tracing::error!(%error, "training failed");
            Finished {
                stop_reason: error.stop_reason().into(),
                failure: Some(v1::Failure {
                    reason: error.reason().to_owned(),
                    message: error.to_string(),
                }),
                ..Default::default()
            }
        }
    })
}

fn train(
    job: &Job,
    options: &RankOptions,
    events: &Arc<EventSender>,
    control: &ControlState,
) -> Result<Finished, Error> {
    let started = Instant::now();
    let spans = Spans::new(job, events);
    let spec = Spec::resolve(job.spec.as_ref())
        .map_err(|violations| Error::Spec(format!("{violations:?}")))?;
    let device = device::select(&job.device)?;
    if spec.shards > 1 {
        // Sums depend on the number of threads, and the result of shards must not.
        device::compute_with_threads(1);
    }
    let waiting = launched_ranks(options, &spec, device)?;
    let scan_start = SystemTime::now();
    let Some(dataset) = scan(job, &spec, events, control)? else {
        return Ok(paused());
    };
    spans.record("scan", scan_start)?;
    let load_start = SystemTime::now();
    let restored = restore(job, (&dataset.digest, spec.shards), events)?;
    let mut session = Session::build(Start {
        job,
        spec,
        dataset: &dataset,
        device,
        events,
        started,
        restored,
        ranks: Ranks::solo(),
    })?;
    spans.record("load", load_start)?;
    if let Some(end) = session.validate_initial(events, control)? {
        return Ok(end);
    }
    if let Some(waiting) = waiting {
        session.start_ranks(waiting.ready()?)?;
    } else if let Some(options) = local_ranks(job, options, &session) {
        session.start_ranks(Ranks::connect(&options)?)?;
    }
    let stop_reason = match train_epochs(&mut session, &spans, events, control)? {
        EpochsEnd::Stopped(reason) => reason,
        EpochsEnd::Paused => return Ok(paused()),
    };
    session.end_ranks();
    session.finish_saving()?;
    if !session.has_best() {
        if stop_reason == v1::StopReason::UserStop {
            return Err(Error::Cancelled);
        }
        if stop_reason == v1::StopReason::MaxDuration {
            return Err(Error::OutOfTime);
        }
        return Err(Error::NonFiniteValidation {
            learning_rate: session.learning_rate(),
        });
    }
    let test_start = SystemTime::now();
    let test = session.test(events, control)?;
    if test.is_some() {
        spans.record("test", test_start)?;
    }
    let compare_start = SystemTime::now();
    let comparison = session.compare(events, control)?;
    if comparison.is_some() {
        spans.record("promote", compare_start)?;
    }
    Ok(Finished {
        stop_reason: stop_reason.into(),
        test,
        comparison,
        ..Default::default()
    })
}

/// The end of the epochs.
#[derive(Debug)]
pub(super) enum EpochsEnd {
    Stopped(v1::StopReason),
    /// With a full checkpoint on disk.
    Paused,
}

/// Trains epochs until one of the rules of the spec or a request ends them; on all ranks.
pub(super) fn train_epochs(
    session: &mut Session<'_>,
    spans: &Spans<'_>,
    events: &EventSender,
    control: &ControlState,
) -> Result<EpochsEnd, Error> {
    if !session.is_within_epoch() {
        // Changes requested during the preparation apply to the next epoch.
        session.apply_changes(control)?;
    }
    loop {
        if session.agreed_stop_reason()?.is_some() {
            session.finish_saving()?;
            // Changes since the last epoch, such as more epochs, still apply; later ones do not.
            session.apply_changes(control)?;
        }
        if let Some(reason) = session.agreed_stop_reason()? {
            return Ok(EpochsEnd::Stopped(reason));
        }
        let (epoch_start, spent_before) = (SystemTime::now(), session.spent());
        match session.epoch(events, control)? {
            EpochEnd::Complete(epoch) => {
                if let Some(metrics) = &epoch.metrics {
                    spans.record_epoch(epoch_start, spent_before, metrics)?;
                }
                events.send(worker_event::Kind::Epoch(*epoch))?;
                session.apply_changes(control)?;
                let save_start = SystemTime::now();
                if session.save_after_epoch()? {
                    spans.record("save", save_start)?;
                }
            }
            EpochEnd::Stopped(reason) => return Ok(EpochsEnd::Stopped(reason)),
            EpochEnd::Paused => return Ok(EpochsEnd::Paused),
        }
    }
}

/// Connects to the ranks that a launcher started. They leave if the training cannot use them.
fn launched_ranks(
    options: &RankOptions,
    spec: &Spec,
    device: Device,
) -> Result<Option<WaitingRanks>, Error> {
    if !options.is_launched {
        return Ok(None);
    }
    let (count, shards) = (options.count, spec.shards);
    let waiting = WaitingRanks::new(Ranks::connect(options)?, options.timeout);
    if device == Device::Cpu && count.is_power_of_two() && count <= shards {
        return Ok(Some(waiting));
    }
    tracing::warn!(
        ranks = count,
        shards,
        "only rank 0 trains, because the ranks must divide spec.shards of a training on the CPU"
    );
    Ok(None)
}

/// Returns the options of the ranks that this one starts, if there are any.
fn local_ranks(job: &Job, options: &RankOptions, session: &Session<'_>) -> Option<RankOptions> {
    let shards = session.spec.shards;
    if options.is_launched {
        return None;
    }
    // Their number divides the shards; a GPU trains in one process.
    let count = if session.device == Device::Cpu {
        1 << options.count.min(shards).max(1).ilog2()
    } else {
        1
    };
    if count < options.count {
        tracing::info!(
            processes = options.count,
            shards,
            ranks = count,
            "fewer ranks than processes, because they divide the shards of a training on the CPU"
        );
    }
    (count > 1).then(|| RankOptions {
        count,
        group: format!("{}/{}", job.training, job.attempt),
        ..options.clone()
    })
}

pub(super) fn paused() -> Finished {
    Finished {
        paused: true,
        ..Default::default()
    }
}

/// Reads the resume point of a training with the expected dataset digest and shards. If it is not
/// usable, reports a new start to the server.
fn restore(
    job: &Job,
    expected: (&str, usize),
    events: &EventSender,
) -> Result<Option<Restored>, Error> {
    let Some(resume) = &job.resume else {
        return Ok(None);
    };
    let reason = match full_checkpoint::read(Path::new(&job.work_dir), resume, expected) {
        Ok(restored) => return Ok(Some(restored)),
        Err(reason) => reason,
    };
    tracing::warn!(
        reason,
        "full checkpoint is not usable; training starts again"
    );
    events.send(worker_event::Kind::Restarted(Restarted { reason }))?;
    Ok(None)
}

/// Scans the dataset and reports its content; `None` if the training is to pause.
fn scan(
    job: &Job,
    spec: &Spec,
    events: &EventSender,
    control: &ControlState,
) -> Result<Option<Dataset>, Error> {
    let options = spec.dataset.options(spec.seed, limits(job));
    let mut roots = dataset::Roots::new(job.data_roots.iter().map(PathBuf::from))?;
    if let Some(data_dir) = Path::new(&job.artifacts_dir).parent() {
        roots = roots.except_data_dir(data_dir.to_owned())?;
    }
    let mut progress = |step: dataset::Phase, done: usize, all: usize| {
        // The next required event fails if the server is gone.
        drop(events.progress(|| v1::Progress {
            max_epochs: spec.max_epochs,
            step: done as u32,
            steps: all as u32,
            phase: step.label().to_owned(),
            ..Default::default()
        }));
    };
    let is_cancelled = || control.signal() != ControlSignal::Continue;
    let path = Path::new(&spec.dataset.path);
    let dataset = dataset::load(path, &roots, &options, &mut progress, &is_cancelled);
    match control.signal() {
        ControlSignal::Continue => {}
        ControlSignal::Pause => return Ok(None),
        ControlSignal::Stop | ControlSignal::Cancel | ControlSignal::Kill => {
            return Err(Error::Cancelled);
        }
    }
    let dataset = dataset?;
    events.send(worker_event::Kind::Dataset(dataset_report(&dataset)))?;
    Ok(Some(dataset))
}
