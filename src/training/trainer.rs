//! The training itself: scan, initial weights or what an earlier process left, epochs, test.
//!
//! The order of images and what is drawn for them are functions of seed, epoch and position, so the same spec, data and machine give the same losses and weights
//! on a CPU, however often the process is interrupted.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Instant, SystemTime},
};

use crate::{
    dataset::{self, Dataset, dataset_report},
    model::device,
    proto::{
        v1,
        worker_v1::{BegunAnew, Finished, Job, worker_event},
    },
};

use super::{
    failure::Error,
    full_checkpoint::{self, Restored},
    process::{Control, Reporter, Wish},
    session::{Pass, Session, limits},
    spans::Spans,
    spec::Spec,
};

/// Runs a job to its end, whatever that is.
pub fn run(job: &Job, reporter: &Arc<Reporter>, control: &Control) -> Finished {
    match train(job, reporter, control) {
        Ok(finished) => finished,
        Err(Error::Cancelled) => Finished {
            stop_reason: v1::StopReason::UserStop.into(),
            cancelled: true,
            ..Default::default()
        },
        Err(error) => {
            tracing::error!(%error, "the training failed");
            Finished {
                stop_reason: error.stop_reason().into(),
                failure: Some(v1::Failure {
                    reason: error.reason(),
                    message: error.to_string(),
                }),
                ..Default::default()
            }
        }
    }
}

fn train(job: &Job, reporter: &Arc<Reporter>, control: &Control) -> Result<Finished, Error> {
    let begun = Instant::now();
    let spans = Spans::new(job, reporter);
    let spec = Spec::resolve(job.spec.as_ref())
        .map_err(|violations| Error::Spec(format!("{violations:?}")))?;
    let device = device::select(&job.device)?;
    let scanning = SystemTime::now();
    let Some(dataset) = scan(job, &spec, reporter, control)? else {
        return Ok(paused());
    };
    spans.done("scan", scanning)?;
    let loading = SystemTime::now();
    let restored = restore(job, &dataset, reporter)?;
    let process = (begun, reporter);
    let mut session = Session::prepare(job, spec, &dataset, device, process, restored)?;
    spans.done("load", loading)?;
    if !session.is_within_epoch() {
        // What was asked for while the training prepared counts from the coming epoch on.
        session.change(control.take_changes());
    }
    let stop_reason = loop {
        if session.ending().is_some() {
            session.finish_saving()?;
            // What was asked for since the epoch was told, such as more epochs, still counts; from here on it does not.
            session.change(control.take_changes());
        }
        if let Some(reason) = session.ending() {
            break reason;
        }
        let (epoch_begun, spent_before) = (SystemTime::now(), session.spent());
        match session.epoch(reporter, control)? {
            Pass::Complete(done) => {
                if let Some(metrics) = &done.metrics {
                    spans.epoch(epoch_begun, spent_before, metrics)?;
                }
                reporter
                    .send(worker_event::Kind::Epoch(*done))
                    .map_err(Error::Pipe)?;
                session.change(control.take_changes());
                let saving = SystemTime::now();
                if session.save_after_epoch()? {
                    spans.done("save", saving)?;
                }
            }
            Pass::Broken(reason) => break reason,
            Pass::Paused => return Ok(paused()),
        }
    };
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
    let testing = SystemTime::now();
    let test = session.test(reporter, control)?;
    if test.is_some() {
        spans.done("test", testing)?;
    }
    Ok(Finished {
        stop_reason: stop_reason.into(),
        test,
        ..Default::default()
    })
}

fn paused() -> Finished {
    Finished {
        paused: true,
        ..Default::default()
    }
}

/// What an earlier process left, if that can be used; else the server is told that the training begins anew.
fn restore(job: &Job, dataset: &Dataset, reporter: &Reporter) -> Result<Option<Restored>, Error> {
    let Some(resume) = &job.resume else {
        return Ok(None);
    };
    let reason = match full_checkpoint::read(Path::new(&job.work_dir), resume, &dataset.digest) {
        Ok(restored) => return Ok(Some(restored)),
        Err(reason) => reason,
    };
    tracing::warn!(
        reason,
        "the full checkpoint cannot be used: the training begins anew"
    );
    reporter
        .send(worker_event::Kind::BegunAnew(BegunAnew { reason }))
        .map_err(Error::Pipe)?;
    Ok(None)
}

/// Reads the dataset and tells what it holds; `None` when a pause came before the end.
fn scan(
    job: &Job,
    spec: &Spec,
    reporter: &Reporter,
    control: &Control,
) -> Result<Option<Dataset>, Error> {
    let options = spec.dataset.options(spec.seed, limits(job));
    let roots = dataset::Roots::new(job.data_roots.iter().map(PathBuf::from))?;
    let mut progress = |step: dataset::Phase, done: usize, all: usize| {
        // A server that is gone is noticed by the next event that matters.
        drop(reporter.progress(|| v1::Progress {
            max_epochs: spec.max_epochs,
            step: done as u32,
            steps: all as u32,
            phase: step.label().to_owned(),
            ..Default::default()
        }));
    };
    let cancelled = || control.wish() != Wish::GoOn;
    let path = Path::new(&spec.dataset.path);
    let dataset = dataset::load(path, &roots, &options, &mut progress, &cancelled);
    match control.wish() {
        Wish::GoOn => {}
        Wish::Pause => return Ok(None),
        Wish::Stop | Wish::Cancel | Wish::Orphaned => return Err(Error::Cancelled),
    }
    let dataset = dataset?;
    let report = dataset_report(&dataset);
    reporter
        .send(worker_event::Kind::Dataset(report))
        .map_err(Error::Pipe)?;
    Ok(Some(dataset))
}
