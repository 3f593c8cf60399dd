//! Trainings and their epochs as lines of text.

use std::time::{Duration, SystemTime};

use crate::{
    cli::{
        output::text::{duration_text, size_text, std_duration},
        report::evaluation::test_lines,
        status_text::with_flags,
    },
    names::state_in_words,
    proto::v1::{EpochMetrics, Estimate, Progress, Promote, StopReason, Training},
};

/// Shortest remaining time that is shown.
const MIN_ETA: Duration = Duration::from_secs(1);

/// Message after the loss of an event stream.
pub(crate) fn lost_sentence(cause: &str) -> String {
    format!("Connection lost ({cause}); reconnecting, no event will be missed.")
}

/// `Epoch 1/10, Training Loss: 580.8863, Validation Loss: 184.5743`, then further metrics.
pub(crate) fn epoch_line(metrics: &EpochMetrics) -> String {
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
        .filter(|eta| *eta >= MIN_ETA);
    if let Some(eta) = eta {
        line.push_str(&format!(", ETA {}", duration_text(eta)));
    }
    if metrics.skipped_images > 0 {
        line.push_str(&format!(", {} images skipped", metrics.skipped_images));
    }
    line
}

/// Validation of the initial weights.
pub(crate) fn initial_line(initial: &EpochMetrics) -> String {
    format!(
        "Epoch 0/{}, before training: Validation Loss: {:.4}, RMSE: {:.2}, MAE: {:.2}",
        initial.max_epochs, initial.val_loss, initial.val_rmse, initial.val_mae
    )
}

/// Compares the best epoch with the initial weights by MAE, the metric that people know.
fn gain_line(initial: &EpochMetrics, best: &EpochMetrics) -> String {
    let verdict = if best.val_mae < initial.val_mae {
        "Training reduced the error"
    } else {
        "Training did not reduce the error"
    };
    format!(
        "{verdict}: MAE {:.2} -> {:.2}",
        initial.val_mae, best.val_mae
    )
}

/// Text beside the progress bar of a training.
pub(crate) fn progress_text(progress: &Progress) -> String {
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
    let eta = progress.eta.as_ref().map(std_duration);
    // Below a second an estimate says nothing.
    if let Some(eta) = eta.filter(|eta| *eta >= MIN_ETA) {
        text.push_str(&format!(", ETA {}", duration_text(eta)));
    }
    text
}

/// Estimated resources of a training.
pub(crate) fn estimate_line(estimate: &Estimate) -> String {
    let mut line = format!(
        "Estimate: {} of memory, {} of disk, {} steps per epoch",
        size_text(estimate.memory_bytes),
        size_text(estimate.disk_bytes),
        estimate.steps_per_epoch
    );
    if let Some(duration) = &estimate.duration {
        line.push_str(&format!(
            ", {} in total",
            duration_text(std_duration(duration))
        ));
    }
    line
}

/// Time from the first start of the process to the end; `None` before the end.
pub(crate) fn duration(training: &Training) -> Option<Duration> {
    let (start, end) = (training.start_time?, training.end_time?);
    let start = SystemTime::try_from(start).ok()?;
    SystemTime::try_from(end).ok()?.duration_since(start).ok()
}

/// True if the best epoch has no lower error than the initial weights; `None` if these were not
/// validated.
pub(crate) fn is_not_better(training: &Training) -> Option<bool> {
    let (initial, best) = (training.initial.as_ref()?, training.best.as_ref()?);
    Some(best.val_mae >= initial.val_mae)
}

/// State, stop reason and duration of a training.
pub(crate) fn state_line(training: &Training) -> String {
    let mut headline = format!("{} {}", training.name, state_in_words(training.state()));
    let reason = stop_reason_text(training.stop_reason());
    if !reason.is_empty() {
        headline.push_str(&format!(": {reason}"));
    }
    if let Some(duration) = duration(training) {
        headline.push_str(&format!(" ({})", duration_text(duration)));
    }
    headline
}

/// State, best epoch and test evaluation of a training.
pub(crate) fn summary_lines(training: &Training) -> Vec<String> {
    let mut lines = vec![state_line(training)];
    if let Some(failure) = &training.failure {
        let message = with_flags(&failure.message);
        lines.push(format!("  {message} ({})", failure.reason));
    }
    if let Some(best) = &training.best {
        lines.push(format!(
            "Best epoch {} of {}: Validation Loss: {:.4}, RMSE: {:.2}, MAE: {:.2}",
            best.epoch, best.max_epochs, best.val_loss, best.val_rmse, best.val_mae
        ));
        let initial = training.initial.as_ref();
        lines.extend(initial.map(|initial| gain_line(initial, best)));
    }
    if let Some(test) = &training.test {
        let spec = training.resolved_spec.as_ref();
        lines.extend(test_lines(test, spec.and_then(|spec| spec.init.as_ref())));
    }
    if !training.model_version.is_empty() {
        lines.push(format!("Model version: {}", training.model_version));
    }
    lines.extend(promotion_line(training));
    lines
}

/// Comparison with the live version, if the promotion depended on it.
fn promotion_line(training: &Training) -> Option<String> {
    let spec = training.resolved_spec.as_ref();
    let is_compared = spec.is_some_and(|spec| spec.promote() == Promote::IfBetter);
    let promotion = training.promotion.as_ref().filter(|_| is_compared)?;
    Some(format!("Promotion: {}", promotion.reason))
}

fn stop_reason_text(reason: StopReason) -> &'static str {
    match reason {
        StopReason::Unspecified => "",
        StopReason::MaxEpochs => "all epochs are done",
        StopReason::EarlyStopped => "the validation loss no longer improved",
        StopReason::TargetReached => "the target was reached",
        StopReason::UserStop => "on request",
        StopReason::MaxDuration => "its maximum duration was reached",
        StopReason::NonFiniteLoss => "the loss became infinite or NaN",
        StopReason::OutOfMemory => "memory was insufficient",
        StopReason::DataError => "the dataset or the initial weights could not be used",
        StopReason::WorkerDied => "its process crashed, hung or violated the protocol",
        StopReason::ServerRestartLimit => "the server was restarted too often",
        StopReason::Internal => "an internal error of the server or its disk",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::v1::{Promotion, TrainingSpec};

    #[test]
    fn a_summary_has_the_comparison_with_the_live_version() {
        let training = |promote: Promote| Training {
            resolved_spec: Some(TrainingSpec {
                promote: promote.into(),
                ..Default::default()
            }),
            model_version: "models/age/versions/3".to_owned(),
            promotion: Some(Promotion {
                promoted: true,
                reason: "version 3: 42.99, live version 1: 47.00 on the same images -> promoted"
                    .to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let last = |promote: Promote| summary_lines(&training(promote)).pop().unwrap();
        assert_eq!(
            last(Promote::IfBetter),
            "Promotion: version 3: 42.99, live version 1: 47.00 on the same images -> promoted"
        );
        assert_eq!(
            last(Promote::Always),
            "Model version: models/age/versions/3"
        );
    }

    #[test]
    fn the_summary_says_whether_training_helped() {
        let validated = |epoch: u32, val_mae: f64| EpochMetrics {
            epoch,
            max_epochs: 5,
            val_loss: 30.25,
            val_rmse: 5.5,
            val_mae,
            ..EpochMetrics::default()
        };
        let initial = validated(0, 4.123);
        assert_eq!(
            initial_line(&initial),
            "Epoch 0/5, before training: Validation Loss: 30.2500, RMSE: 5.50, MAE: 4.12"
        );
        let mut training = Training {
            initial: Some(initial),
            best: Some(validated(4, 3.899)),
            ..Training::default()
        };
        let last = |training: &Training| summary_lines(training).pop();
        let helped = "Training reduced the error: MAE 4.12 -> 3.90";
        assert_eq!(last(&training).as_deref(), Some(helped));
        training.best = Some(validated(1, 4.123));
        let failed = "Training did not reduce the error: MAE 4.12 -> 4.12";
        assert_eq!(last(&training).as_deref(), Some(failed));
        training.initial = None;
        assert!(last(&training).is_some_and(|line| line.starts_with("Best epoch 1 of 5")));
    }

    /// Scripts read the start of this line.
    #[test]
    fn an_epoch_line_starts_with_number_and_losses() {
        let metrics = EpochMetrics {
            epoch: 1,
            max_epochs: 10,
            train_loss: 580.886_31,
            val_loss: 184.574_28,
            val_rmse: 13.585_8,
            val_mae: 10.204,
            images_per_second: 24.07,
            eta: Some(prost_types::Duration {
                seconds: 130,
                nanos: 400_000_000,
            }),
            ..EpochMetrics::default()
        };
        assert_eq!(
            epoch_line(&metrics),
            "Epoch 1/10, Training Loss: 580.8863, Validation Loss: 184.5743, RMSE: 13.59, MAE: 10.20, 24.1 images/s, ETA 2m10s"
        );
        let last = EpochMetrics {
            epoch: 10,
            eta: None,
            skipped_images: 3,
            ..metrics
        };
        let line = epoch_line(&last);
        assert!(line.starts_with("Epoch 10/10, "), "{line}");
        assert!(line.ends_with("24.1 images/s, 3 images skipped"), "{line}");
    }
}
