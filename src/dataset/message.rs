//! Conversions between datasets and the messages of the API.

use crate::proto::v1;

use super::{ColumnNames, Dataset, Split, SplitOrigin, SplitReport};

pub(crate) fn column_names(columns: Option<&v1::ManifestColumns>) -> ColumnNames {
    let Some(columns) = columns else {
        return ColumnNames::default();
    };
    ColumnNames {
        path: columns.path.clone(),
        age: columns.age.clone(),
        split: columns.split.clone(),
    }
}

/// Returns `None` if all columns have their default names.
pub(crate) fn manifest_columns(names: &ColumnNames) -> Option<v1::ManifestColumns> {
    (*names != ColumnNames::default()).then(|| v1::ManifestColumns {
        path: names.path.clone(),
        age: names.age.clone(),
        split: names.split.clone(),
    })
}

pub(crate) fn dataset_report(dataset: &Dataset) -> v1::DatasetReport {
    let report = &dataset.report;
    v1::DatasetReport {
        digest: dataset.digest.clone(),
        val_digest: dataset.val_digest.clone(),
        splits: vec![
            split(split_name(Split::Train), &report.train),
            split(split_name(Split::Val), &report.val),
            split(split_name(Split::Test), &report.test),
        ],
        rejects: report
            .rejects
            .iter()
            .map(|reject| v1::RejectReport {
                reason: reject.reason.label().to_owned(),
                count: reject.count,
                examples: reject.examples.clone(),
            })
            .collect(),
        duplicate_groups: report.duplicates.groups,
        straddling_groups: report.duplicates.straddling,
        scan_seconds: report.seconds,
        warnings: report.warnings.clone(),
        left_out_columns: left_out_columns(dataset),
    }
}

/// Returns the manifest columns that do not define groups, or `None` without such columns.
pub(crate) fn left_out_columns(dataset: &Dataset) -> Option<v1::LeftOutColumns> {
    let found = &dataset.report.left_out_columns;
    (found.count > 0).then(|| v1::LeftOutColumns {
        count: found.count,
        listed: found
            .listed
            .iter()
            .map(|column| v1::LeftOutColumn {
                name: column.name.clone(),
                reason: column.reason.label().to_owned(),
                description: column.reason.description().to_owned(),
            })
            .collect(),
    })
}

/// Counts the images of each decade of age.
pub(crate) fn age_bands(dataset: &Dataset) -> Vec<v1::AgeBand> {
    let bands = dataset.report.ages.iter();
    bands
        .map(|band| v1::AgeBand {
            // Accepted ages are 0 or more.
            from_age: band.from.unsigned_abs(),
            train: band.train,
            validation: band.val,
            test: band.test,
        })
        .collect()
}

pub(crate) fn split_origin(dataset: &Dataset) -> v1::SplitOrigin {
    match dataset.report.split {
        SplitOrigin::Given => v1::SplitOrigin::Given,
        SplitOrigin::Hashed => v1::SplitOrigin::Made,
    }
}

/// Returns the name of a split in the API.
pub(crate) fn split_name(part: Split) -> &'static str {
    match part {
        Split::Train => "train",
        Split::Val => "validation",
        Split::Test => "test",
    }
}

fn split(name: &str, split: &SplitReport) -> v1::SplitReport {
    let age = split.age.as_ref();
    v1::SplitReport {
        split: name.to_owned(),
        images: split.images,
        age_mean: age.map_or(0.0, |age| age.mean),
        age_sd: age.map_or(0.0, |age| age.standard_deviation),
        age_min: age.map_or(0.0, |age| f64::from(age.min)),
        age_max: age.map_or(0.0, |age| f64::from(age.max)),
    }
}
