//! Between the API's words about a dataset and the dataset module's.

use crate::{
    dataset::{self, AgeRange, Dataset, PartReport, SplitFractions},
    imaging::Limits,
    proto::v1,
};

use super::spec::Spec;

/// How a spec wants its dataset read.
pub fn dataset_options(spec: &Spec, limits: Limits) -> dataset::Options {
    dataset::Options {
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

/// What a dataset was found to hold, as a message.
pub fn dataset_report(dataset: &Dataset) -> v1::DatasetReport {
    let report = &dataset.report;
    v1::DatasetReport {
        digest: dataset.digest.clone(),
        val_digest: dataset.val_digest.clone(),
        splits: vec![
            split("train", &report.train),
            split("validation", &report.val),
            split("test", &report.test),
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
