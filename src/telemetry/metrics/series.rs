//! The series of a metric in the current recorder.

use std::time::Duration;

use ::metrics::{Counter, Gauge, Histogram, Key, Level, Metadata, SharedString};

use super::{
    families::FAMILIES,
    family::{Family, Kind, Start},
};

static METADATA: Metadata<'static> =
    Metadata::new(module_path!(), Level::INFO, Some(module_path!()));

/// Describes every metric to the current recorder, and creates the series that are known
/// beforehand.
pub(crate) fn describe() {
    for family in FAMILIES {
        ::metrics::with_recorder(|recorder| {
            let (name, help) = (family.name.into(), family.help.into());
            match family.kind {
                Kind::Counter => recorder.describe_counter(name, None, help),
                Kind::Gauge(_) => recorder.describe_gauge(name, None, help),
                Kind::Histogram(_) => recorder.describe_histogram(name, None, help),
            }
        });
        for values in known_label_values(family) {
            match family.kind {
                Kind::Counter => counter(family, &values).absolute(0),
                Kind::Gauge(Start::Zero) => gauge(family, &values).set(0.0),
                Kind::Gauge(Start::Absent) => gauge(family, &values).set(f64::NAN),
                // Registering a histogram is enough: it is exported with empty buckets.
                Kind::Histogram(_) => drop(histogram(family, &values)),
            }
        }
    }
}

pub(super) fn counter(family: &'static Family, values: &[SharedString]) -> Counter {
    debug_assert_eq!(family.kind, Kind::Counter, "{}", family.name);
    let key = series_key(family, values);
    ::metrics::with_recorder(|recorder| recorder.register_counter(&key, &METADATA))
}

pub(super) fn gauge(family: &'static Family, values: &[SharedString]) -> Gauge {
    debug_assert!(matches!(family.kind, Kind::Gauge(_)), "{}", family.name);
    let key = series_key(family, values);
    ::metrics::with_recorder(|recorder| recorder.register_gauge(&key, &METADATA))
}

pub(super) fn histogram(family: &'static Family, values: &[SharedString]) -> Histogram {
    debug_assert!(matches!(family.kind, Kind::Histogram(_)), "{}", family.name);
    let key = series_key(family, values);
    ::metrics::with_recorder(|recorder| recorder.register_histogram(&key, &METADATA))
}

/// `values` are in the order of the family's labels, one for each.
fn series_key(family: &'static Family, values: &[SharedString]) -> Key {
    debug_assert_eq!(family.labels.len(), values.len(), "{}", family.name);
    let labels: Vec<::metrics::Label> = family
        .labels
        .iter()
        .zip(values)
        .map(|(label, value)| ::metrics::Label::new(label.key, value.clone()))
        .collect();
    Key::from_parts(family.name, labels)
}

/// Returns every combination of a family's label values: one empty combination without labels,
/// none if a label is open.
fn known_label_values(family: &Family) -> Vec<Vec<SharedString>> {
    let mut combinations = vec![Vec::new()];
    for label in family.labels {
        combinations = combinations
            .iter()
            .flat_map(|head: &Vec<SharedString>| {
                label.values.iter().map(move |&value| {
                    let mut longer = head.clone();
                    longer.push(value.into());
                    longer
                })
            })
            .collect();
    }
    combinations
}

pub(super) fn microseconds(elapsed: Duration) -> u64 {
    u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)
}
