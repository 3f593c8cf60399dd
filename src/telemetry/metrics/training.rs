use std::time::Duration;

use ::metrics::SharedString;

use crate::telemetry::metrics::{
    families::{
        TRAINING_DATA_WAIT, TRAINING_EPOCH, TRAINING_IMAGES, TRAINING_LEARNING_RATE, TRAINING_LOSS,
        TRAINING_MAE, TRAINING_MAX_EPOCHS, TRAINING_PHASE, TRAINING_QUEUE_LENGTH, TRAINING_RMSE,
        TRAINING_SKIPPED_IMAGES, TRAINING_SPEED, TRAINING_WORKER_RESTARTS, TRAININGS,
        TRAININGS_FINISHED,
    },
    family::Family,
    labels::{SkipReason, Split, StopReason, TrainingPhase, TrainingState},
    series::{counter, gauge, microseconds},
};

/// The metrics of an epoch. Errors are over the whole split.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct EpochReport {
    /// From 1.
    pub(crate) epoch: u32,
    /// Mean squared error in square years.
    pub(crate) training_loss: f64,
    /// As above; `None` without a validation split.
    pub(crate) validation_loss: Option<f64>,
    pub(crate) rmse_years: Option<f64>,
    pub(crate) mae_years: Option<f64>,
    /// At the end of the epoch.
    pub(crate) learning_rate: f64,
    pub(crate) images_per_second: f64,
    /// Share of the time spent waiting for decoded images, 0 to 1.
    pub(crate) data_wait_share: f64,
}

/// Called for every state whenever the counts may have changed.
pub(crate) fn trainings_in_state(state: TrainingState, trainings: u64) {
    gauge(&TRAININGS, &[state.as_str().into()]).set(trainings as f64);
}

pub(crate) fn training_queue_length(trainings: usize) {
    gauge(&TRAINING_QUEUE_LENGTH, &[]).set(trainings as f64);
}

/// A training started, or continues after `finished_epochs`. The errors of the previous training
/// disappear.
pub(crate) fn training_started(finished_epochs: u32, max_epochs: u32) {
    gauge(&TRAINING_EPOCH, &[]).set(finished_epochs);
    gauge(&TRAINING_MAX_EPOCHS, &[]).set(max_epochs);
    set_training_errors(None, None, None, None);
    gauge(&TRAINING_LEARNING_RATE, &[]).set(f64::NAN);
}

pub(crate) fn epoch_finished(report: &EpochReport) {
    gauge(&TRAINING_EPOCH, &[]).set(report.epoch);
    set_training_errors(
        Some(report.training_loss),
        report.validation_loss,
        report.rmse_years,
        report.mae_years,
    );
    gauge(&TRAINING_LEARNING_RATE, &[]).set(report.learning_rate);
    gauge(&TRAINING_DATA_WAIT, &[]).set(report.data_wait_share);
    training_speed(report.images_per_second);
}

pub(crate) fn training_speed(images_per_second: f64) {
    gauge(&TRAINING_SPEED, &[]).set(images_per_second);
}

/// The worker of the running training stopped, for any reason. The errors of the last epoch
/// remain until the next training starts, so that a training shorter than a scrape interval is
/// still visible.
pub(crate) fn training_halted() {
    training_speed(0.0);
}

pub(crate) fn training_phase(phase: TrainingPhase, elapsed: Duration) {
    counter(&TRAINING_PHASE, &[phase.as_str().into()]).increment(microseconds(elapsed));
}

pub(crate) fn training_images(images: u64) {
    counter(&TRAINING_IMAGES, &[]).increment(images);
}

pub(crate) fn training_images_skipped(reason: SkipReason, images: u64) {
    counter(&TRAINING_SKIPPED_IMAGES, &[reason.as_str().into()]).increment(images);
}

pub(crate) fn training_finished(reason: StopReason) {
    counter(&TRAININGS_FINISHED, &[reason.as_str().into()]).increment(1);
}

pub(crate) fn training_worker_restarted() {
    counter(&TRAINING_WORKER_RESTARTS, &[]).increment(1);
}

fn set_training_errors(
    training_loss: Option<f64>,
    validation_loss: Option<f64>,
    rmse_years: Option<f64>,
    mae_years: Option<f64>,
) {
    let set = |family: &'static Family, values: &[SharedString], value: Option<f64>| {
        gauge(family, values).set(value.unwrap_or(f64::NAN));
    };
    let split = |split: Split| [split.as_str().into()];
    set(&TRAINING_LOSS, &split(Split::Train), training_loss);
    set(&TRAINING_LOSS, &split(Split::Validation), validation_loss);
    set(&TRAINING_RMSE, &[], rmse_years);
    set(&TRAINING_MAE, &[], mae_years);
}
