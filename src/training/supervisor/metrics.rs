//! Metrics of trainings.

use std::time::Duration;

use crate::{
    proto::v1,
    telemetry::metrics::{self, EpochReport, SkipReason, StopReason, TrainingPhase, TrainingState},
};

/// Sets the number of trainings by state; a missing state has none.
pub(super) fn states(counts: &[(v1::TrainingState, u64)]) {
    for state in TrainingState::ALL {
        let count = counts
            .iter()
            .find(|(found, _)| state_label(*found) == Some(*state));
        metrics::trainings_in_state(*state, count.map_or(0, |(_, count)| *count));
    }
    let queued = counts
        .iter()
        .find(|(state, _)| *state == v1::TrainingState::Queued);
    metrics::training_queue_length(queued.map_or(0, |(_, count)| {
        usize::try_from(*count).unwrap_or(usize::MAX)
    }));
}

pub(super) fn rejects(report: &v1::DatasetReport) {
    for reject in &report.rejects {
        let reason = match reject.reason.as_str() {
            "no_age" | "age_out_of_range" | "bad_row" => SkipReason::InvalidLabel,
            "too_large" => SkipReason::TooLarge,
            "permission_denied" | "unreadable" | "missing" | "outside_root" => {
                SkipReason::Unreadable
            }
            _ => SkipReason::Undecodable,
        };
        metrics::training_images_skipped(reason, reject.count);
    }
}

pub(super) fn progress(progress: &v1::Progress) {
    match progress.phase.as_str() {
        "scan" => metrics::training_started(0, progress.max_epochs),
        "train" => metrics::training_speed(progress.images_per_second),
        _ => {}
    }
}

pub(super) fn epoch(epoch: &v1::EpochMetrics) {
    metrics::epoch_finished(&EpochReport {
        epoch: epoch.epoch,
        training_loss: epoch.train_loss,
        validation_loss: Some(epoch.val_loss),
        rmse_years: Some(epoch.val_rmse),
        mae_years: Some(epoch.val_mae),
        learning_rate: epoch.learning_rate,
        images_per_second: epoch.images_per_second,
        data_wait_share: epoch.data_wait_share,
    });
    metrics::training_images(epoch.train_images);
    metrics::training_images_skipped(SkipReason::Undecodable, epoch.skipped_images);
    let seconds = epoch.seconds.unwrap_or_default();
    let phases = [
        (TrainingPhase::Data, seconds.data),
        (TrainingPhase::Forward, seconds.forward),
        (TrainingPhase::Backward, seconds.backward),
        (TrainingPhase::Update, seconds.update),
        (TrainingPhase::Validate, seconds.validate),
        (TrainingPhase::Checkpoint, seconds.checkpoint),
    ];
    for (phase, seconds) in phases {
        metrics::training_phase(
            phase,
            Duration::try_from_secs_f64(seconds).unwrap_or_default(),
        );
    }
}

pub(super) fn paused() {
    metrics::training_halted();
}

pub(super) fn finished(reason: v1::StopReason) {
    metrics::training_halted();
    let reason = match reason {
        v1::StopReason::MaxEpochs => StopReason::MaxEpochs,
        v1::StopReason::EarlyStopped => StopReason::EarlyStopped,
        v1::StopReason::TargetReached => StopReason::TargetReached,
        v1::StopReason::UserStop => StopReason::UserStop,
        v1::StopReason::MaxDuration => StopReason::MaxDuration,
        v1::StopReason::NonFiniteLoss => StopReason::NonFiniteLoss,
        v1::StopReason::OutOfMemory => StopReason::OutOfMemory,
        v1::StopReason::DataError => StopReason::DataError,
        v1::StopReason::WorkerDied => StopReason::WorkerDied,
        v1::StopReason::ServerRestartLimit => StopReason::ServerRestartLimit,
        v1::StopReason::Unspecified | v1::StopReason::Internal => StopReason::Internal,
    };
    metrics::training_finished(reason);
}

fn state_label(state: v1::TrainingState) -> Option<TrainingState> {
    Some(match state {
        v1::TrainingState::Unspecified => return None,
        v1::TrainingState::Queued => TrainingState::Queued,
        v1::TrainingState::Preparing => TrainingState::Preparing,
        v1::TrainingState::Running => TrainingState::Running,
        v1::TrainingState::Pausing => TrainingState::Pausing,
        v1::TrainingState::Paused => TrainingState::Paused,
        v1::TrainingState::Stopping => TrainingState::Stopping,
        v1::TrainingState::Cancelling => TrainingState::Cancelling,
        v1::TrainingState::Succeeded => TrainingState::Succeeded,
        v1::TrainingState::Failed => TrainingState::Failed,
        v1::TrainingState::Cancelled => TrainingState::Cancelled,
    })
}
