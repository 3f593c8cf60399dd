//! The training itself: scan, initial weights, epochs, test.
//!
//! The order of images is a function of seed and epoch, so the same spec, data and machine give the same losses and weights on a CPU.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use crate::{
    dataset::{self, Dataset},
    model::device,
    proto::{
        v1,
        worker_v1::{EpochDone, Finished, Job, worker_event},
    },
};

use super::{
    early_stopping::EarlyStopping,
    failure::Error,
    process::{Control, Reporter, Wish},
    report::{dataset_options, dataset_report},
    session::{Pass, Session, is_past, limits},
    spec::Spec,
};

/// Runs a job to its end, whatever that is.
pub fn run(job: &Job, reporter: &Reporter, control: &Control) -> Finished {
    match train(job, reporter, control) {
        Ok(finished) => finished,
        Err(Error::Cancelled) => Finished {
            stop_reason: v1::StopReason::UserStop.into(),
            failure: None,
            test: None,
            cancelled: true,
        },
        Err(error) => {
            tracing::error!(%error, "the training failed");
            Finished {
                stop_reason: error.stop_reason().into(),
                failure: Some(v1::Failure {
                    reason: error.reason(),
                    message: error.to_string(),
                }),
                test: None,
                cancelled: false,
            }
        }
    }
}

fn train(job: &Job, reporter: &Reporter, control: &Control) -> Result<Finished, Error> {
    let spec = Spec::resolve(job.spec.as_ref())
        .map_err(|violations| Error::Spec(format!("{violations:?}")))?;
    let begun = Instant::now();
    let device = device::select(&job.device)?;
    let dataset = scan(job, &spec, reporter, control)?;
    let mut session = Session::prepare(job, &spec, &dataset, device, reporter)?;
    let mut stopping = EarlyStopping::new(spec.patience, spec.min_delta);
    let started = Instant::now();
    let deadline = spec.max_duration.and_then(|limit| begun.checked_add(limit));
    let mut best = None;
    let mut stop_reason = v1::StopReason::MaxEpochs;
    for epoch in 1..=spec.max_epochs {
        let outcome = session.epoch(epoch, (started, deadline), reporter, control)?;
        let (mut metrics, scored) = match outcome {
            Pass::Complete(metrics, scored) => (*metrics, scored),
            Pass::Broken(reason) => {
                stop_reason = reason;
                break;
            }
        };
        let verdict = stopping.observe(metrics.val_loss);
        metrics.is_best = verdict.is_best;
        metrics.epochs_without_improvement = verdict.waited;
        let mut files = Vec::new();
        if verdict.is_best {
            let writing = Instant::now();
            files = session.write_checkpoint(&metrics, &scored)?;
            if let Some(seconds) = metrics.seconds.as_mut() {
                seconds.checkpoint = writing.elapsed().as_secs_f64();
                seconds.total += seconds.checkpoint;
            }
            best = Some(session.snapshot()?);
        }
        let done = EpochDone {
            metrics: Some(metrics),
            files,
        };
        reporter
            .send(worker_event::Kind::Epoch(done))
            .map_err(Error::Pipe)?;
        let out_of_time = is_past(deadline);
        let ended_by = match control.wish() {
            Wish::Cancel | Wish::Orphaned => return Err(Error::Cancelled),
            Wish::Stop => Some(v1::StopReason::UserStop),
            Wish::GoOn if verdict.stop => Some(v1::StopReason::EarlyStopped),
            Wish::GoOn if out_of_time => Some(v1::StopReason::MaxDuration),
            Wish::GoOn => None,
        };
        if let Some(reason) = ended_by.filter(|_| epoch < spec.max_epochs) {
            stop_reason = reason;
            break;
        }
    }
    let Some(best) = best else {
        if stop_reason == v1::StopReason::UserStop {
            return Err(Error::Cancelled);
        }
        if stop_reason == v1::StopReason::MaxDuration {
            return Err(Error::OutOfTime);
        }
        return Err(Error::NonFiniteValidation {
            learning_rate: spec.optimizer.learning_rate,
        });
    };
    let test = session.test(best, reporter, control)?;
    Ok(Finished {
        stop_reason: stop_reason.into(),
        failure: None,
        test,
        cancelled: false,
    })
}

/// Reads the dataset and tells what it holds.
fn scan(job: &Job, spec: &Spec, reporter: &Reporter, control: &Control) -> Result<Dataset, Error> {
    let options = dataset_options(spec, limits(job));
    let roots = dataset::Roots::new(job.data_roots.iter().map(PathBuf::from))?;
    let mut progress = |done: usize, all: usize| {
        // A server that is gone is noticed by the next event that matters.
        drop(reporter.progress(|| v1::Progress {
            max_epochs: spec.max_epochs,
            step: done as u32,
            steps: all as u32,
            phase: "scan".to_owned(),
            ..Default::default()
        }));
    };
    let cancelled = || matches!(control.wish(), Wish::Cancel | Wish::Orphaned | Wish::Stop);
    let path = Path::new(&spec.dataset.path);
    let dataset = dataset::load(path, &roots, &options, &mut progress, &cancelled);
    if cancelled() {
        return Err(Error::Cancelled);
    }
    let dataset = dataset?;
    let report = dataset_report(&dataset);
    reporter
        .send(worker_event::Kind::Dataset(report))
        .map_err(Error::Pipe)?;
    Ok(dataset)
}
