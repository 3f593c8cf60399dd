//! Between the API's words about a dataset and the dataset module's.

use crate::{
    dataset::{
        self, AgeRange, ColumnNames, Dataset, Part, PartReport, SplitFractions, SplitOrigin,
    },
    imaging::Limits,
    proto::v1,
};

use super::spec::Spec;

/// How a spec wants its dataset read.
pub fn dataset_options(spec: &Spec, limits: Limits) -> dataset::Options {
    dataset::Options {
        age_pattern: spec.dataset.age_pattern.clone(),
        columns: spec.dataset.columns.clone(),
        ages: AgeRange {
            min: spec.dataset.min_age as f32,
            max: spec.dataset.max_age as f32,
        },
        split: SplitFractions {
            val: spec.dataset.validation_fraction,
            test: spec.dataset.test_fraction,
        },
        seed: spec.seed,
        grouping: spec.dataset.split_grouping,
        max_reject_share: spec.dataset.max_reject_share,
        limits,
        ..dataset::Options::default()
    }
}

/// The headings of a manifest's columns that a message names.
pub fn column_names(columns: Option<&v1::ManifestColumns>) -> ColumnNames {
    let Some(columns) = columns else {
        return ColumnNames::default();
    };
    ColumnNames {
        path: columns.path.clone(),
        age: columns.age.clone(),
        split: columns.split.clone(),
    }
}

/// The same as a message; none for the usual ones.
pub fn manifest_columns(names: &ColumnNames) -> Option<v1::ManifestColumns> {
    (*names != ColumnNames::default()).then(|| v1::ManifestColumns {
        path: names.path.clone(),
        age: names.age.clone(),
        split: names.split.clone(),
    })
}

/// What a dataset was found to hold, as a message.
pub fn dataset_report(dataset: &Dataset) -> v1::DatasetReport {
    let report = &dataset.report;
    v1::DatasetReport {
        digest: dataset.digest.clone(),
        val_digest: dataset.val_digest.clone(),
        splits: vec![
            split(split_name(Part::Train), &report.train),
            split(split_name(Part::Val), &report.val),
            split(split_name(Part::Test), &report.test),
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

/// Columns of its manifest that define no groups, as a message; none where there are none.
pub fn left_out_columns(dataset: &Dataset) -> Option<v1::LeftOutColumns> {
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

/// Its images by decade of age, as messages.
pub fn age_bands(dataset: &Dataset) -> Vec<v1::AgeBand> {
    let bands = dataset.report.ages.iter();
    bands
        .map(|band| v1::AgeBand {
            // No accepted age is below 0.
            from_age: band.from.unsigned_abs(),
            train: band.train,
            validation: band.val,
            test: band.test,
        })
        .collect()
}

/// Where its parts are from.
pub fn split_origin(dataset: &Dataset) -> v1::SplitOrigin {
    match dataset.report.split {
        SplitOrigin::Given => v1::SplitOrigin::Given,
        SplitOrigin::Hashed => v1::SplitOrigin::Made,
    }
}

/// What the API calls a part.
pub fn split_name(part: Part) -> &'static str {
    match part {
        Part::Train => "train",
        Part::Val => "validation",
        Part::Test => "test",
    }
}

fn split(name: &str, part: &PartReport) -> v1::SplitReport {
    let age = part.age.as_ref();
    v1::SplitReport {
        split: name.to_owned(),
        images: part.images,
        age_mean: age.map_or(0.0, |age| age.mean),
        age_sd: age.map_or(0.0, |age| age.standard_deviation),
        age_min: age.map_or(0.0, |age| f64::from(age.min)),
        age_max: age.map_or(0.0, |age| f64::from(age.max)),
    }
}
