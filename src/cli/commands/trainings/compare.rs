//! `visage trainings compare`: different settings first, then the metrics.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::{
    cli::{
        args::short_names,
        client::Client,
        commands::trainings::run::find,
        context::{Context, Outcome},
        error::Error,
        output::{json, table, text::duration_text},
        report::{self, settings, validation_sets},
    },
    proto::v1::Training,
};

/// Mark of the lowest error in a row.
const LOWEST: &str = " *";

/// A metric whose lower values are better.
struct Metric {
    title: &'static str,
    value: fn(&Training) -> Option<f64>,
    digits: usize,
}

const METRICS: &[Metric] = &[
    Metric {
        title: "validation loss",
        value: |training| Some(training.best.as_ref()?.val_loss),
        digits: 4,
    },
    Metric {
        title: "validation RMSE",
        value: |training| Some(training.best.as_ref()?.val_rmse),
        digits: 2,
    },
    Metric {
        title: "validation MAE",
        value: |training| Some(training.best.as_ref()?.val_mae),
        digits: 2,
    },
];

pub(super) async fn run(
    names: &[String],
    client: &Client,
    context: &Context,
) -> Result<Outcome, Error> {
    let mut trainings = Vec::new();
    for name in names {
        let name = short_names::training(name);
        let found = find(&name, client).await?;
        trainings.push(found.ok_or_else(|| Error::Contract(format!("{name} is missing")))?);
    }
    let output = &context.output;
    if output.is_json() {
        output.object(&object(&trainings))?;
        return Ok(Outcome::Done);
    }
    let mut header = vec![""];
    header.extend(
        trainings
            .iter()
            .map(|training| short_names::training_id(&training.name)),
    );
    let rows = rows(&trainings);
    table::print(output, &header, &rows)?;
    if are_comparable(&trainings) {
        output.note("* lowest");
    } else {
        output.line(
            "The trainings were validated on different images, so their errors are not comparable. \
             Evaluate both versions on the same images: `visage evaluate DATASET --version N`.",
        )?;
    }
    Ok(Outcome::Done)
}

/// Settings with more than one value, by name, with the value of each training.
fn differences(trainings: &[Training]) -> BTreeMap<String, Vec<String>> {
    let all: Vec<_> = trainings.iter().map(settings::effective).collect();
    let names: BTreeSet<&String> = all.iter().flat_map(BTreeMap::keys).collect();
    names
        .into_iter()
        .filter_map(|name| {
            let values: Vec<String> = all
                .iter()
                .map(|settings| settings.get(name).cloned().unwrap_or_default())
                .collect();
            let differs = values.iter().any(|value| *value != values[0]);
            differs.then(|| (name.clone(), values))
        })
        .collect()
}

/// True if all validated trainings used the same validation images.
fn are_comparable(trainings: &[Training]) -> bool {
    marks(trainings).is_none()
}

fn marks(trainings: &[Training]) -> Option<Vec<String>> {
    // From the oldest row to the newest, as the marks count.
    let digests = trainings.iter().rev().map(|training| {
        let dataset = training.dataset.as_ref();
        dataset.map_or("", |dataset| dataset.val_digest.as_str())
    });
    let mut marks = validation_sets::marks(digests)?;
    marks.reverse();
    Some(marks)
}

fn rows(trainings: &[Training]) -> Vec<Vec<String>> {
    let row = |title: &str, cell: &dyn Fn(&Training) -> String| {
        let mut row = vec![title.to_owned()];
        row.extend(trainings.iter().map(|training| match cell(training) {
            empty if empty.is_empty() => "-".to_owned(),
            cell => cell,
        }));
        row
    };
    let mut rows: Vec<Vec<String>> = differences(trainings)
        .into_iter()
        .map(|(name, values)| {
            let values = values.into_iter().map(|value| match value.as_str() {
                "" => "-".to_owned(),
                _ => value,
            });
            std::iter::once(name).chain(values).collect()
        })
        .collect();
    if !rows.is_empty() {
        rows.push(vec![String::new()]);
    }
    rows.push(row("state", &|training| {
        report::state_name(training.state()).to_owned()
    }));
    rows.push(row("best epoch", &|training| {
        let best = training.best.as_ref();
        best.map(|best| format!("{} of {}", best.epoch, best.max_epochs))
            .unwrap_or_default()
    }));
    if let Some(marks) = marks(trainings) {
        let mut row = vec!["validation images".to_owned()];
        row.extend(marks);
        rows.push(row);
    }
    let is_comparable = are_comparable(trainings);
    rows.extend(
        METRICS
            .iter()
            .map(|metric| metric_row(metric, trainings, is_comparable)),
    );
    let test = Metric {
        title: "test MAE",
        value: |training| Some(training.test.as_ref()?.mae),
        digits: 2,
    };
    // Test images are split from the same dataset.
    rows.push(metric_row(&test, trainings, has_one_dataset(trainings)));
    rows.push(row("duration", &|training| {
        report::duration(training)
            .map(duration_text)
            .unwrap_or_default()
    }));
    rows.push(row("model version", &|training| {
        short_names::version_id(&training.model_version).to_owned()
    }));
    rows
}

/// A metric of each training; the lowest is marked if the values are comparable.
fn metric_row(metric: &Metric, trainings: &[Training], is_comparable: bool) -> Vec<String> {
    let values: Vec<Option<f64>> = trainings.iter().map(metric.value).collect();
    let lowest = values.iter().flatten().copied().reduce(f64::min);
    let digits = metric.digits;
    let mut row = vec![metric.title.to_owned()];
    row.extend(values.iter().map(|value| match value {
        None => "-".to_owned(),
        Some(value) => {
            let is_lowest = is_comparable && Some(*value) == lowest;
            let mark = if is_lowest { LOWEST } else { "" };
            format!("{value:.digits$}{mark}")
        }
    }));
    row
}

fn has_one_dataset(trainings: &[Training]) -> bool {
    let digests: BTreeSet<&str> = trainings
        .iter()
        .filter_map(|training| Some(training.dataset.as_ref()?.digest.as_str()))
        .collect();
    digests.len() <= 1 && are_comparable(trainings)
}

fn object(trainings: &[Training]) -> Value {
    let ids = || {
        trainings
            .iter()
            .map(|training| short_names::training_id(&training.name))
    };
    let differences: BTreeMap<String, BTreeMap<&str, String>> = differences(trainings)
        .into_iter()
        .map(|(name, values)| (name, ids().zip(values).collect()))
        .collect();
    json!({
        "comparable": are_comparable(trainings),
        "differences": differences,
        "trainings": trainings
            .iter()
            .map(|training| json::value("Training", training))
            .collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::v1::{DatasetReport, EpochMetrics, OptimizerSpec, TrainingSpec};

    fn training(id: &str, rate: f64, val_digest: &str, val_loss: f64) -> Training {
        Training {
            name: format!("trainings/{id}"),
            spec: Some(TrainingSpec {
                max_epochs: Some(5),
                optimizer: Some(OptimizerSpec {
                    learning_rate: Some(rate),
                    ..OptimizerSpec::default()
                }),
                ..TrainingSpec::default()
            }),
            dataset: Some(DatasetReport {
                digest: "d".to_owned(),
                val_digest: val_digest.to_owned(),
                ..DatasetReport::default()
            }),
            best: Some(EpochMetrics {
                epoch: 2,
                max_epochs: 5,
                val_loss,
                ..EpochMetrics::default()
            }),
            ..Training::default()
        }
    }

    #[test]
    fn only_different_settings_are_shown_and_the_lowest_error_is_marked() {
        let trainings = [
            training("a", 1e-4, "v", 90.0),
            training("b", 1e-3, "v", 80.0),
        ];
        let rows = rows(&trainings);
        assert_eq!(rows[0], ["optimizer.learning_rate", "0.0001", "0.001"]);
        assert_eq!(rows[1], [""]);
        assert!(
            rows.contains(
                &["validation loss", "90.0000", "80.0000 *"]
                    .map(str::to_owned)
                    .to_vec()
            )
        );
        assert!(
            rows.contains(
                &["best epoch", "2 of 5", "2 of 5"]
                    .map(str::to_owned)
                    .to_vec()
            )
        );
        let object = object(&trainings);
        assert_eq!(object["comparable"], true);
        assert_eq!(
            object["differences"]["optimizer.learning_rate"]["b"],
            "0.001"
        );
    }

    #[test]
    fn errors_on_different_images_are_not_ranked() {
        let trainings = [
            training("a", 1e-4, "v", 90.0),
            training("b", 1e-4, "w", 80.0),
        ];
        let rows = rows(&trainings);
        assert!(
            rows.contains(
                &["validation loss", "90.0000", "80.0000"]
                    .map(str::to_owned)
                    .to_vec()
            )
        );
        assert!(rows.contains(&["validation images", "A", "B"].map(str::to_owned).to_vec()));
        assert_eq!(object(&trainings)["comparable"], false);
    }
}
