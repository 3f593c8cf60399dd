//! Trainings, epochs and evaluations as lines of text.

mod dataset;
mod evaluation;

use std::time::Duration;

use crate::proto::v1::{
    DatasetReport, EpochMetrics, Estimate, LeftOutColumns, Progress, RejectReport, StopReason,
    Training, TrainingState,
};

pub(super) use dataset::check_sections;
pub(super) use evaluation::{
    evaluation_lines, evaluation_report_lines, predicted_lines, worst_lines,
};

/// Columns named in the line about columns that are not labels.
const MAX_LEFT_OUT_COLUMNS: usize = 10;

/// What to say when a stream of events broke off.
pub(super) fn lost_sentence(cause: &str) -> String {
    format!("Connection lost ({cause}); trying again, no event will be missed.")
}

/// `Epoch 1/10, Training Loss: 580.8863, Validation Loss: 184.5743`, then what else is worth knowing.
pub(super) fn epoch_line(metrics: &EpochMetrics) -> String {
    let mut line = format!(
        "Epoch {}/{}, Training Loss: {:.4}, Validation Loss: {:.4}, RMSE: {:.2}, MAE: {:.2}, {:.1} images/s",
        metrics.epoch,
        metrics.max_epochs,
        metrics.train_loss,
        metrics.val_loss,
        metrics.val_rmse,
        metrics.val_mae,
        metrics.images_per_second,
    );
    let eta = metrics
        .eta
        .as_ref()
        .map(std_duration)
        .filter(|eta| !eta.is_zero());
    if let Some(eta) = eta {
        line.push_str(&format!(", ETA {}", duration_text(eta)));
    }
    if metrics.skipped_images > 0 {
        line.push_str(&format!(", {} images skipped", metrics.skipped_images));
    }
    line
}

/// What stands beside the progress bar while a dataset is worked on.
pub(super) fn step_text(phase: &str, done: u64, total: u64) -> String {
    match total {
        0 => phase.to_owned(),
        total => format!("{phase} {done}/{total} images"),
    }
}

/// What stands beside the progress bar of a training.
pub(super) fn progress_text(progress: &Progress) -> String {
    let mut text = match progress.epoch {
        0 => progress.phase.clone(),
        epoch => format!("epoch {epoch}/{} {}", progress.max_epochs, progress.phase),
    };
    if progress.steps > 0 {
        text.push_str(&format!(" {}/{}", progress.step, progress.steps));
    }
    if let Some(loss) = progress.train_loss {
        text.push_str(&format!(", loss {loss:.1}"));
    }
    if progress.images_per_second > 0.0 {
        text.push_str(&format!(", {:.1} images/s", progress.images_per_second));
    }
    if let Some(eta) = &progress.eta {
        text.push_str(&format!(", ETA {}", duration_text(std_duration(eta))));
    }
    text
}

/// What the scan has found, then the warnings, one a line.
pub(super) fn dataset_lines(report: &DatasetReport) -> Vec<String> {
    let splits: Vec<String> = report
        .splits
        .iter()
        .map(|split| format!("{} {}", split.images, split.split))
        .collect();
    let mut lines = vec![format!("Dataset: {} images", splits.join(", "))];
    lines.extend(rejects_line(&report.rejects));
    lines.extend(left_out_columns_line(report.left_out_columns.as_ref()));
    lines.extend(
        report
            .warnings
            .iter()
            .map(|warning| format!("  warning: {warning}")),
    );
    lines
}

/// Columns that are not used as labels, and why; none when there are none.
fn left_out_columns_line(columns: Option<&LeftOutColumns>) -> Option<String> {
    let columns = columns.filter(|columns| columns.count > 0)?;
    let shown = columns.listed.iter().take(MAX_LEFT_OUT_COLUMNS);
    let shown: Vec<String> = shown
        .map(|column| format!("{} ({})", column.name, column.description))
        .collect();
    let more = match columns.count - shown.len() as u64 {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Some(format!("  not labels: {}{more}", shown.join(", ")))
}

/// How many files were left out, and why; none when there are none.
fn rejects_line(rejects: &[RejectReport]) -> Option<String> {
    let rejected: u64 = rejects.iter().map(|reject| reject.count).sum();
    let reasons: Vec<String> = rejects
        .iter()
        .map(|reject| {
            format!(
                "{} {} ({})",
                reject.count,
                reject.reason,
                reject.examples.join(", ")
            )
        })
        .collect();
    (rejected > 0).then(|| format!("  {rejected} files left out: {}", reasons.join("; ")))
}

/// What a training would need.
pub(super) fn estimate_line(estimate: &Estimate) -> String {
    let mut line = format!(
        "It would need about {} of memory and {} of disk, {} steps an epoch",
        size_text(estimate.memory_bytes),
        size_text(estimate.disk_bytes),
        estimate.steps_per_epoch
    );
    if let Some(duration) = &estimate.duration {
        line.push_str(&format!(
            ", {} in all",
            duration_text(std_duration(duration))
        ));
    }
    line
}

/// How an ended (or living) training stands: state, reason, best epoch, test.
pub(super) fn summary_lines(training: &Training) -> Vec<String> {
    let mut headline = format!("{} {}", training.name, state_text(training.state()));
    let reason = stop_reason_text(training.stop_reason());
    if !reason.is_empty() {
        headline.push_str(&format!(": {reason}"));
    }
    let mut lines = vec![headline];
    if let Some(failure) = &training.failure {
        lines.push(format!("  {} ({})", failure.message, failure.reason));
    }
    if let Some(best) = &training.best {
        lines.push(format!(
            "Best epoch {} of {}: Validation Loss: {:.4}, RMSE: {:.2}, MAE: {:.2}",
            best.epoch, best.max_epochs, best.val_loss, best.val_rmse, best.val_mae
        ));
    }
    if let Some(test) = &training.test {
        lines.extend(evaluation_lines("Test", test));
    }
    if !training.model_version.is_empty() {
        lines.push(format!("Model version: {}", training.model_version));
    }
    lines
}

/// `RUNNING` and the like.
pub(super) use crate::names::of_state as state_name;

fn state_text(state: TrainingState) -> &'static str {
    match state {
        TrainingState::Unspecified => "is in a state that this version does not know",
        TrainingState::Queued => "waits for the device",
        TrainingState::Preparing => "reads its dataset and weights",
        TrainingState::Running => "is running",
        TrainingState::Pausing => "is pausing",
        TrainingState::Paused => "is paused",
        TrainingState::Stopping => "is stopping early",
        TrainingState::Cancelling => "is being cancelled",
        TrainingState::Succeeded => "succeeded",
        TrainingState::Failed => "failed",
        TrainingState::Cancelled => "was cancelled",
    }
}

fn stop_reason_text(reason: StopReason) -> &'static str {
    match reason {
        StopReason::Unspecified => "",
        StopReason::MaxEpochs => "all epochs are done",
        StopReason::EarlyStopped => "the validation loss no longer improved",
        StopReason::TargetReached => "the target was reached",
        StopReason::UserStop => "on request",
        StopReason::MaxDuration => "its longest duration has passed",
        StopReason::NonFiniteLoss => "the loss became infinite or not a number",
        StopReason::OutOfMemory => "there was too little memory",
        StopReason::DataError => "the dataset or the initial weights could not be used",
        StopReason::WorkerDied => "its process died, hung or broke its protocol",
        StopReason::ServerRestartLimit => "the server was restarted too often",
        StopReason::Internal => "a fault of the server or its disk",
    }
}

/// `450ms`, `12s`, `2m10s`, `3h05m`.
pub(super) fn duration_text(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        return format!("{}ms", duration.as_millis());
    }
    // Rounded to whole seconds first, so that 59.6 s is `1m00s` and not `60s`.
    let seconds = duration.as_secs() + u64::from(duration.subsec_millis() >= 500);
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m{seconds:02}s"),
        (hours, minutes, _) => format!("{hours}h{minutes:02}m"),
    }
}

/// `512 B`, `1.5 KiB`, `44.7 MiB`.
pub(super) fn size_text(bytes: u64) -> String {
    let units = [(1u64 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    for (unit, name) in units {
        if bytes >= unit {
            return format!("{:.1} {name}", bytes as f64 / unit as f64);
        }
    }
    format!("{bytes} B")
}

/// A duration of the API; a negative one, which none should be, is zero.
pub(super) fn std_duration(duration: &prost_types::Duration) -> Duration {
    Duration::try_from(*duration).unwrap_or_default()
}
