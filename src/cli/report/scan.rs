//! Scans of datasets as lines of text.

use crate::proto::v1::{DatasetReport, LeftOutColumns, RejectReport};

/// Maximum number of columns in the line about columns that are not labels.
const MAX_LEFT_OUT_COLUMNS: usize = 10;

/// Text beside the progress bar of a scan.
pub(crate) fn step_text(phase: &str, done: u64, total: u64) -> String {
    match total {
        0 => phase.to_owned(),
        total => format!("{phase} {done}/{total} images"),
    }
}

/// Splits, rejected files, ignored columns and warnings, one per line.
pub(crate) fn dataset_lines(report: &DatasetReport) -> Vec<String> {
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

/// Columns that are not used as labels, with reasons.
pub(super) fn left_out_columns_line(columns: Option<&LeftOutColumns>) -> Option<String> {
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

/// Number of rejected files, with reasons.
pub(super) fn rejects_line(rejects: &[RejectReport]) -> Option<String> {
    let rejected: u64 = rejects.iter().map(|reject| reject.count).sum();
    let reasons: Vec<String> = rejects
        .iter()
        .map(|reject| {
            format!(
                "{} {} ({})",
                reject.count,
                reject.reason.replace('_', " "),
                reject.examples.join(", ")
            )
        })
        .collect();
    (rejected > 0).then(|| format!("  {rejected} files left out: {}", reasons.join("; ")))
}
