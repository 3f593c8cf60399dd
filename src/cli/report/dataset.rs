//! Results of a dataset check as lines and tables.

use crate::{
    cli::{
        output::text::{duration_text, std_duration},
        report::scan::{left_out_columns_line, rejects_line},
    },
    proto::v1::{DatasetCheck, DuplicateReport, LabelOutliers, SplitOrigin},
};

/// Width of the longest bar of the histogram.
const BAR: f64 = 40.0;

/// Lines, and a table below them if it has rows.
pub(crate) struct Section {
    pub(crate) lines: Vec<String>,
    pub(crate) header: &'static [&'static str],
    pub(crate) rows: Vec<Vec<String>>,
}

/// All results of a check, the most general first.
pub(crate) fn check_sections(check: &DatasetCheck) -> Vec<Section> {
    let mut sections = vec![parts(check), ages(check)];
    if let Some(exact) = &check.exact {
        sections.push(duplicates("Byte-identical images", exact));
    }
    if let Some(near) = &check.near {
        let title = format!(
            "Images that look the same (up to {} of 256 bits apart)",
            near.max_distance
        );
        sections.push(duplicates(&title, near));
    }
    if let Some(outliers) = &check.outliers {
        sections.push(doubtful(outliers));
    }
    sections
}

fn parts(check: &DatasetCheck) -> Section {
    let dataset = check.dataset.clone().unwrap_or_default();
    let images: u64 = dataset.splits.iter().map(|split| split.images).sum();
    let origin = match check.split_origin() {
        SplitOrigin::Unspecified => "",
        SplitOrigin::Given => ", splits from the dataset",
        SplitOrigin::Made => ", splits by the server",
    };
    let took = check.duration.as_ref().map(std_duration);
    let took = took
        .map(|took| format!(" ({})", duration_text(took)))
        .unwrap_or_default();
    let mut lines = vec![format!(
        "{}: {images} images{origin}{took}",
        check.dataset_path
    )];
    lines.extend(
        dataset
            .warnings
            .iter()
            .map(|warning| format!("  warning: {warning}")),
    );
    lines.extend(rejects_line(&dataset.rejects));
    lines.extend(left_out_columns_line(dataset.left_out_columns.as_ref()));
    if check.ignored_files > 0 {
        lines.push(format!(
            "  {} other files are not images",
            check.ignored_files
        ));
    }
    lines.push(String::new());
    let rows = dataset.splits.iter().filter(|split| split.images > 0);
    Section {
        lines,
        header: &["split", "images", "mean age", "SD", "min age", "max age"],
        rows: rows
            .map(|split| {
                vec![
                    split.split.clone(),
                    split.images.to_string(),
                    format!("{:.1}", split.age_mean),
                    format!("{:.1}", split.age_sd),
                    split.age_min.to_string(),
                    split.age_max.to_string(),
                ]
            })
            .collect(),
    }
}

fn ages(check: &DatasetCheck) -> Section {
    let total = |band: &crate::proto::v1::AgeBand| band.train + band.validation + band.test;
    let most = check.ages.iter().map(total).max().unwrap_or(0).max(1);
    Section {
        lines: vec![String::new()],
        header: &["age", "train", "validation", "test", ""],
        rows: check
            .ages
            .iter()
            .map(|band| {
                let share = total(band) as f64 / most as f64;
                // Rounded up, so that one image in thousands is visible.
                let bar = (BAR * share).ceil() as usize;
                vec![
                    format!("{}-{}", band.from_age, band.from_age + 9),
                    band.train.to_string(),
                    band.validation.to_string(),
                    band.test.to_string(),
                    "#".repeat(bar),
                ]
            })
            .collect(),
    }
}

/// A number with the form of the word that belongs to it.
fn numbered(count: u64, one: &str, several: &str) -> String {
    match count {
        1 => format!("1 {one}"),
        count => format!("{count} {several}"),
    }
}

/// The first row of a group has its number and the properties in which its images differ.
fn duplicates(title: &str, found: &DuplicateReport) -> Section {
    let headline = match found.groups {
        0 => format!("{title}: none"),
        groups => format!(
            "{title}: {} in {}; {} in several splits, {} different ages",
            found.images,
            numbered(groups, "group", "groups"),
            numbered(found.straddling_groups, "group is", "groups are"),
            numbered(found.conflicting_groups, "has", "have"),
        ),
    };
    let mut lines = vec![String::new(), headline];
    let listed = found.listed.len() as u64;
    if listed > 0 && listed < found.groups {
        lines.push(format!("  the first {listed}, worst first:"));
    }
    let mut rows = Vec::new();
    for (number, group) in found.listed.iter().enumerate() {
        let differs = match (group.straddles, group.conflicts) {
            (true, true) => "split, age",
            (true, false) => "split",
            (false, true) => "age",
            (false, false) => "",
        };
        for (index, image) in group.images.iter().enumerate() {
            let of_first = |text: String| if index == 0 { text } else { String::new() };
            let distance = match (index, found.max_distance) {
                (0, _) | (_, 0) => String::new(),
                _ if image.mirrored => format!("{} mirrored", image.distance),
                _ => image.distance.to_string(),
            };
            rows.push(vec![
                of_first((number + 1).to_string()),
                of_first(differs.to_owned()),
                image.split.clone(),
                image.age.to_string(),
                distance,
                image.file.clone(),
            ]);
        }
        let unlisted = group.size.saturating_sub(group.images.len() as u64);
        if unlisted > 0 {
            let mut row = vec![String::new(); 5];
            row.push(format!("and {unlisted} more"));
            rows.push(row);
        }
    }
    Section {
        lines,
        header: &["#", "differ in", "split", "age", "bits", "file"],
        rows,
    }
}

fn doubtful(found: &LabelOutliers) -> Section {
    let expected = (1.0 - found.level) * found.images as f64;
    let mut lines = vec![
        String::new(),
        format!(
            "Ages outside the {:.0} % interval of {}: {} of {} images, about {expected:.0} expected",
            100.0 * found.level,
            found.model_version,
            found.outside,
            found.images
        ),
    ];
    if found.skipped_images > 0 {
        lines.push(format!(
            "  {} images could not be read",
            found.skipped_images
        ));
    }
    Section {
        lines,
        header: &["split", "age", "predicted", "interval", "times", "file"],
        rows: found
            .listed
            .iter()
            .map(|outlier| {
                vec![
                    outlier.split.clone(),
                    outlier.age.to_string(),
                    format!("{:.1}", outlier.predicted),
                    format!("{:.1} to {:.1}", outlier.lower, outlier.upper),
                    format!("{:.2}", outlier.ratio),
                    outlier.file.clone(),
                ]
            })
            .collect(),
    }
}
