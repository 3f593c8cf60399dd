//! Settings of a training as pairs of text, by the names that `--set` takes.

use std::{
    collections::{BTreeMap, HashMap},
    sync::LazyLock,
};

use prost_reflect::EnumDescriptor;
use serde_json::Value;

use crate::{
    cli::{
        args::api_enum,
        output::{json, text::duration_text},
    },
    proto::v1::{Training, TrainingSpec},
};

/// Settings that describe every training, in this order.
const MAIN: &[&str] = &[
    "recipe",
    "init.kind",
    "init.version",
    "init.path",
    "trainable",
    "max_epochs",
    "batch_size",
    "input_size",
    "optimizer.kind",
    "optimizer.learning_rate",
    "schedule.kind",
    "loss.kind",
    "seed",
];
/// Prefix of the settings of the dataset, which have their own lines.
const DATASET: &str = "dataset.";

/// The main settings of a training and those that its request contains, resolved.
pub(crate) fn shown(training: &Training) -> Vec<(String, String)> {
    let requested = training.spec.as_ref().map(flat).unwrap_or_default();
    let mut resolved = effective(training);
    let mut shown: Vec<(String, String)> = MAIN
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), resolved.remove(*name)?)))
        .collect();
    let others = resolved
        .into_iter()
        .filter(|(name, _)| requested.contains_key(name) && !name.starts_with(DATASET));
    shown.extend(others);
    shown
}

/// All settings of a training by name, with defaults once the server has resolved them.
pub(crate) fn effective(training: &Training) -> BTreeMap<String, String> {
    let spec = training.resolved_spec.as_ref().or(training.spec.as_ref());
    spec.map(flat).unwrap_or_default()
}

/// The dataset of a training: its name, or else its path.
pub(crate) fn dataset_text(training: &Training) -> Option<String> {
    let spec = training.resolved_spec.as_ref().or(training.spec.as_ref())?;
    let dataset = spec.dataset.as_ref()?;
    match (dataset.name.as_str(), dataset.path.as_str()) {
        ("", path) => Some(path.to_owned()),
        (name, "") => Some(name.to_owned()),
        (name, path) => Some(format!("{name} ({path})")),
    }
}

/// Fields that have a value, by name.
fn flat(spec: &TrainingSpec) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    collect(&json::value("TrainingSpec", spec), "", &mut fields);
    fields
}

fn collect(value: &Value, name: &str, fields: &mut BTreeMap<String, String>) {
    let text = match value {
        Value::Object(inner) => {
            for (key, value) in inner {
                let path = match name {
                    "" => key.clone(),
                    name => format!("{name}.{key}"),
                };
                collect(value, &path, fields);
            }
            return;
        }
        Value::Null => return,
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(plain).collect();
            items.join(",")
        }
        Value::Bool(_) | Value::Number(_) | Value::String(_) => plain(value),
    };
    // Fields without presence are empty or unspecified if they are not set.
    if !(text.is_empty() || text.ends_with("_UNSPECIFIED")) {
        let short = SHORT_NAMES.get(&text).cloned();
        fields.insert(name.to_owned(), short.unwrap_or(text));
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => match text.strip_suffix('s').map(str::parse::<f64>) {
            // A duration in protobuf's JSON form.
            Some(Ok(seconds)) if seconds >= 0.0 => {
                let duration = std::time::Duration::try_from_secs_f64(seconds);
                duration.map_or_else(|_| text.clone(), duration_text)
            }
            _ => text.clone(),
        },
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            value.to_string()
        }
    }
}

/// Short names of the values of all enums: `SMOOTH_L1` of `LOSS_KIND_SMOOTH_L1`.
static SHORT_NAMES: LazyLock<HashMap<String, String>> = LazyLock::new(|| {
    let of_enum = |descriptor: EnumDescriptor| {
        let values = api_enum::values(&descriptor).into_iter();
        let named = move |(short, number)| {
            let full = descriptor.get_value(number)?;
            Some((full.name().to_owned(), short))
        };
        values.filter_map(named).collect::<Vec<_>>()
    };
    json::enum_descriptors().flat_map(of_enum).collect()
});

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::v1::{
        DatasetSpec, InitKind, InitSpec, LossKind, LossSpec, OptimizerSpec, Promote,
    };

    #[test]
    fn set_fields_have_the_names_and_values_of_set() {
        let spec = TrainingSpec {
            dataset: Some(DatasetSpec {
                path: "/faces".to_owned(),
                ..DatasetSpec::default()
            }),
            init: Some(InitSpec {
                kind: InitKind::Starter.into(),
                ..InitSpec::default()
            }),
            trainable: vec!["layer4".to_owned(), "fc".to_owned()],
            max_epochs: Some(5),
            optimizer: Some(OptimizerSpec {
                learning_rate: Some(1e-4),
                beta1: Some(0.8),
                ..OptimizerSpec::default()
            }),
            loss: Some(LossSpec {
                kind: LossKind::SmoothL1.into(),
                beta: None,
            }),
            promote: Promote::IfBetter.into(),
            max_duration: Some(prost_types::Duration {
                seconds: 90,
                nanos: 0,
            }),
            ..TrainingSpec::default()
        };
        let training = Training {
            spec: Some(spec),
            ..Training::default()
        };
        let shown = shown(&training);
        let shown: Vec<(&str, &str)> = shown
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        assert_eq!(
            shown,
            [
                ("init.kind", "STARTER"),
                ("trainable", "layer4,fc"),
                ("max_epochs", "5"),
                ("optimizer.learning_rate", "0.0001"),
                ("loss.kind", "SMOOTH_L1"),
                ("max_duration", "1m30s"),
                ("optimizer.beta1", "0.8"),
                ("promote", "IF_BETTER"),
            ]
        );
        assert_eq!(effective(&training)["dataset.path"], "/faces");
        assert_eq!(dataset_text(&training).unwrap(), "/faces");
    }
}
