//! Evaluations as lines of text.

use crate::{
    cli::{
        output::text::{duration_text, std_duration},
        report::scan::{left_out_columns_line, rejects_line},
    },
    proto::v1::{
        BaselineSource, DatasetSplit, Evaluation, EvaluationReport, InitKind, InitSpec,
        PredictedImage,
    },
};

/// Metrics on the test images of a training, as [`evaluation_lines`], with a warning about images
/// that the version was trained on. `init` are the initial weights of the training. An evaluation
/// report has its own warning.
pub(crate) fn test_lines(test: &Evaluation, init: Option<&InitSpec>) -> Vec<String> {
    let mut lines = evaluation_lines("Test", test);
    let warning = match test.trained_on_images {
        Some(0) => return lines,
        Some(trained_on) => format!(
            "{trained_on} of these {} images were trained on; the metrics are optimistic{}",
            test.images,
            init.map(trained_on_cause).unwrap_or_default()
        ),
        None => "the images that the version was trained on are not recorded; if some of these \
                 are among them, the metrics are optimistic"
            .to_owned(),
    };
    lines.insert(1, format!("  warning: {warning}"));
    lines
}

/// Probable reason why a training has test images that were trained on: its initial weights, or
/// else repeated images.
fn trained_on_cause(init: &InitSpec) -> String {
    match (init.kind(), init.version.as_str()) {
        (InitKind::Unspecified, _) => String::new(),
        (InitKind::Starter, _) => {
            ". The initial weights, the starter, were trained on images of UTKFace".to_owned()
        }
        (InitKind::Path, "") => format!(". The initial weights are {}", init.path),
        (InitKind::Path, version) => format!(". The initial weights are {version}"),
        (InitKind::Imagenet1kV1 | InitKind::Random, _) => {
            ". `visage dataset check` finds images that are in two splits".to_owned()
        }
    }
}

/// Metrics over all images, coverage of the interval, and a table of the groups; `title` names the
/// images.
fn evaluation_lines(title: &str, evaluation: &Evaluation) -> Vec<String> {
    let r2 = evaluation
        .r2
        .map(|r2| format!(", R2: {r2:.3}"))
        .unwrap_or_default();
    let mut lines = vec![
        format!(
            "{title} on {} images: MSE: {:.4}, RMSE: {:.2}, MAE: {:.2} ({}: MAE {:.2}){r2}, bias: {:+.2}",
            evaluation.images,
            evaluation.mse,
            evaluation.rmse,
            evaluation.mae,
            baseline_text(evaluation),
            evaluation.baseline_mae,
            evaluation.bias
        ),
        format!("  {}", within_text(evaluation)),
    ];
    if let Some(interval) = &evaluation.interval_coverage {
        lines.push(format!(
            "  {:.0} % interval: contains {:.1} % of the true ages, {:.1} years wide on average",
            100.0 * interval.level,
            100.0 * interval.coverage,
            interval.mean_width
        ));
    }
    if evaluation.groups.is_empty() {
        return lines;
    }
    lines.push(format!(
        "  {:<20} {:>7} {:>7} {:>7} {:>7}",
        "group", "images", "MAE", "RMSE", "bias"
    ));
    for group in &evaluation.groups {
        let name = format!("{} {}", group.key, group.value);
        lines.push(format!(
            "  {name:<20} {:>7} {:>7.2} {:>7.2} {:>+7.2}",
            group.images, group.mae, group.rmse, group.bias
        ));
    }
    if let Some(worst) = &evaluation.worst_group {
        lines.push(format!(
            "  Worst group of 10 images or more: {} {}, MAE: {:.2}",
            worst.key, worst.value, worst.mae
        ));
    }
    lines.extend(left_out_columns_line(evaluation.left_out_columns.as_ref()));
    lines
}

/// A report of EvaluateModelVersion, its warnings first.
pub(crate) fn evaluation_report_lines(report: &EvaluationReport) -> Vec<String> {
    let split = match report.split() {
        DatasetSplit::Unspecified | DatasetSplit::All => "all images",
        DatasetSplit::Train => "its training images",
        DatasetSplit::Validation => "its validation images",
        DatasetSplit::Test => "its test images",
    };
    let took = report.duration.as_ref().map(std_duration);
    let took = took
        .map(|took| format!(" ({})", duration_text(took)))
        .unwrap_or_default();
    let mut lines = vec![format!(
        "{} on {}, {split}{took}",
        report.model_version, report.dataset_path
    )];
    lines.extend(
        report
            .warnings
            .iter()
            .map(|warning| format!("  warning: {warning}")),
    );
    lines.extend(rejects_line(&report.rejects));
    if report.skipped_images > 0 {
        lines.push(format!(
            "  {} images could not be read and are not included",
            report.skipped_images
        ));
    }
    if let Some(evaluation) = &report.evaluation {
        lines.extend(evaluation_lines("Evaluation", evaluation));
        lines.extend(worst_lines(evaluation));
    }
    lines
}

/// A table of the images with the largest errors.
pub(crate) fn worst_lines(evaluation: &Evaluation) -> Vec<String> {
    if evaluation.worst_predictions.is_empty() {
        return Vec::new();
    }
    let mut lines = vec!["Largest errors:".to_owned()];
    lines.extend(predicted_lines(&evaluation.worst_predictions));
    lines
}

/// A table of images with their ages.
pub(crate) fn predicted_lines(images: &[PredictedImage]) -> Vec<String> {
    let header = format!(
        "  {:>7} {:>9} {:>7}  {}",
        "age", "predicted", "error", "file"
    );
    let rows = images.iter().map(|image| {
        format!(
            "  {:>7.1} {:>9.1} {:>+7.1}  {}",
            image.age, image.predicted, image.error, image.file
        )
    });
    std::iter::once(header).chain(rows).collect()
}

fn baseline_text(evaluation: &Evaluation) -> String {
    let age = evaluation.baseline_age;
    match evaluation.baseline_source() {
        BaselineSource::Unspecified => "always guessing the mean age".to_owned(),
        BaselineSource::TrainingMean | BaselineSource::DatasetMean => {
            format!("always guessing {age:.1}")
        }
    }
}

fn within_text(evaluation: &Evaluation) -> String {
    let within_five = format!("within 5 years: {:.1} %", 100.0 * evaluation.cs5);
    // Older servers report this metric only.
    if evaluation.baseline_source() == BaselineSource::Unspecified {
        return within_five;
    }
    format!(
        "within 3 years: {:.1} %, {within_five}, within 10 years: {:.1} %",
        100.0 * evaluation.cs3,
        100.0 * evaluation.cs10
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_lines_warn_of_images_that_were_trained_on_and_name_the_cause() {
        let second = |trained_on_images: Option<u64>, init: Option<&InitSpec>| {
            let test = Evaluation {
                images: 56,
                trained_on_images,
                ..Default::default()
            };
            test_lines(&test, init).swap_remove(1)
        };
        let counted =
            "  warning: 47 of these 56 images were trained on; the metrics are optimistic";
        assert_eq!(second(Some(47), None), counted);
        let init = |kind: InitKind, version: &str| InitSpec {
            kind: kind.into(),
            version: version.to_owned(),
            ..Default::default()
        };
        for (init, cause) in [
            (
                init(InitKind::Starter, ""),
                ". The initial weights, the starter, were trained on images of UTKFace",
            ),
            (
                init(InitKind::Path, "models/age/versions/2"),
                ". The initial weights are models/age/versions/2",
            ),
            (
                init(InitKind::Random, ""),
                ". `visage dataset check` finds images that are in two splits",
            ),
        ] {
            assert_eq!(second(Some(47), Some(&init)), format!("{counted}{cause}"));
        }
        assert!(second(None, None).starts_with("  warning: the images that the version"));
        assert!(second(Some(0), None).starts_with("  within"));
    }
}
