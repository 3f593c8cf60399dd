use crate::{
    dataset::Sample,
    evaluation::{
        Image, Scored,
        metrics::{Baseline, Intervals, evaluate, predicted_image},
        plots,
    },
    inference::{FilePrediction, ServedModel},
    model::{starter, training_images::TrainingImages},
    proto::v1::{self, DatasetSplit},
};

/// The requested results in addition to the metrics.
#[derive(Clone, Copy)]
pub(super) struct Options {
    /// The level of intervals.
    pub(super) level: Option<f64>,
    pub(super) plots: bool,
    pub(super) predictions: bool,
    /// The version is the starter, or its training started from it.
    pub(super) of_starter: Option<OfStarter>,
}

/// Relation of a version to the starter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OfStarter {
    Itself,
    FineTuned,
}

pub(super) struct Results {
    pub(super) evaluation: v1::Evaluation,
    pub(super) predictions: Vec<v1::PredictedImage>,
    pub(super) predicted_plot: Vec<u8>,
    pub(super) residual_plot: Vec<u8>,
    /// The warning for images that the version was trained on.
    pub(super) trained_on_warning: Option<String>,
}

/// Computes metrics and draws plots, which takes too long for an async thread.
pub(super) fn compute(
    model: &ServedModel,
    samples: &[Sample],
    predictions: Vec<FilePrediction>,
    trained_on: Option<&TrainingImages>,
    left_out: Option<v1::LeftOutColumns>,
    options: Options,
) -> Result<Results, plots::Error> {
    let (images, hashes): (Vec<Image<'_>>, Vec<&[u8; 32]>) = samples
        .iter()
        .zip(predictions)
        .filter_map(|(sample, predicted)| {
            let image = Image {
                name: &sample.name,
                labels: sample.labels.iter().collect(),
                scored: Scored {
                    age: f64::from(sample.age),
                    predicted: predicted.ok()?,
                },
            };
            Some((image, &sample.content_hash))
        })
        .unzip();
    let intervals = options
        .level
        .and_then(|level| Intervals::at(model.calibration.as_ref(), level));
    let baseline = Baseline::new(model.mean_training_age, &images);
    let mut results = Results {
        evaluation: evaluate(&images, baseline, intervals, left_out),
        predictions: Vec::new(),
        predicted_plot: Vec::new(),
        residual_plot: Vec::new(),
        trained_on_warning: None,
    };
    let trained_on = trained_on.map(|trained_on| trained_on.count(hashes.iter().copied()));
    results.evaluation.trained_on_images = trained_on;
    let starter = options.of_starter.and_then(|relation| {
        // Without its record, which is built in, the warning does not name it.
        let images = starter::training_images().ok()?;
        Some((relation, images.count(hashes)))
    });
    results.trained_on_warning = trained_on_warning(&results.evaluation, starter);
    if options.predictions {
        results.predictions = images.iter().map(predicted_image).collect();
    }
    if options.plots {
        let scored: Vec<Scored> = images.iter().map(|image| image.scored).collect();
        let caption = format!(
            "{} on {} images: MAE {:.2} years",
            model.name,
            images.len(),
            results.evaluation.mae
        );
        results.predicted_plot = plots::predicted_against_true(&scored, intervals, &caption)?;
        results.residual_plot = plots::residuals_against_true(&scored, &caption)?;
    }
    Ok(results)
}

/// The warning for images that the version was trained on, or that it may have been trained on.
/// `starter` is the number of images that a version of the starter has from it.
fn trained_on_warning(
    evaluation: &v1::Evaluation,
    starter: Option<(OfStarter, u64)>,
) -> Option<String> {
    let images = evaluation.images;
    match evaluation.trained_on_images {
        Some(0) => None,
        Some(trained_on) => {
            let by_starter = match starter {
                None | Some((_, 0)) => String::new(),
                Some((OfStarter::Itself, _)) => " by the starter".to_owned(),
                Some((OfStarter::FineTuned, count)) if count >= trained_on => {
                    " by the starter, from which the version was fine-tuned".to_owned()
                }
                Some((OfStarter::FineTuned, count)) => format!(
                    ", {count} of them by the starter, from which the version was fine-tuned"
                ),
            };
            Some(format!(
                "{trained_on} of these {images} images were trained on{by_starter}; the metrics are optimistic"
            ))
        }
        None => Some(
            "the images that the version was trained on are not recorded; if some of these are among them, the metrics are optimistic".to_owned(),
        ),
    }
}

/// The warning for an evaluation on the dataset of the version's own training. If the training
/// images are recorded, [`trained_on_warning`] counts them.
pub(super) fn own_dataset_warning(split: DatasetSplit, is_recorded: bool) -> Option<String> {
    let warning = match split {
        DatasetSplit::Validation => {
            "the version's best epoch was selected and its intervals were calibrated on these images; the metrics are slightly optimistic"
        }
        DatasetSplit::Unspecified | DatasetSplit::All if !is_recorded => {
            "this is the dataset of the version's training, and most of these images were used for training; the metrics are optimistic"
        }
        DatasetSplit::Train if !is_recorded => {
            "these images were used for training; the metrics are optimistic"
        }
        DatasetSplit::Unspecified
        | DatasetSplit::All
        | DatasetSplit::Train
        | DatasetSplit::Test => return None,
    };
    Some(warning.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_that_were_trained_on_are_counted_in_a_warning() {
        let warning_with = |trained_on_images: Option<u64>, starter| {
            let evaluation = v1::Evaluation {
                images: 56,
                trained_on_images,
                ..Default::default()
            };
            trained_on_warning(&evaluation, starter)
        };
        let warning = |trained_on_images: Option<u64>| warning_with(trained_on_images, None);
        for (relation, count, part) in [
            (OfStarter::Itself, 47, "trained on by the starter; the"),
            (
                OfStarter::FineTuned,
                47,
                "trained on by the starter, from which the version was fine-tuned; the",
            ),
            (
                OfStarter::FineTuned,
                40,
                "trained on, 40 of them by the starter, from which",
            ),
            (OfStarter::FineTuned, 0, "trained on; the"),
        ] {
            let text = warning_with(Some(47), Some((relation, count))).unwrap();
            assert!(
                text.starts_with("47 of these 56 images were ") && text.contains(part),
                "{text}"
            );
        }
        assert_eq!(warning(Some(0)), None);
        assert_eq!(
            warning(Some(47)).unwrap(),
            "47 of these 56 images were trained on; the metrics are optimistic"
        );
        assert!(warning(None).unwrap().contains("not recorded"));
    }

    #[test]
    fn the_own_dataset_is_a_warning_where_its_images_are_not_counted() {
        let (all, test) = (DatasetSplit::All, DatasetSplit::Test);
        assert!(own_dataset_warning(all, false).unwrap().contains("most"));
        assert_eq!(own_dataset_warning(all, true), None);
        assert_eq!(own_dataset_warning(test, false), None);
        for is_recorded in [false, true] {
            let validation = own_dataset_warning(DatasetSplit::Validation, is_recorded);
            assert!(validation.unwrap().contains("calibrated"));
        }
    }
}
